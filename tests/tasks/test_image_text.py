"""CLIP's training: losses by hand, captions drawn, recall of a batch, devices, refusals, and what the sampler shows."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxdl import experiment
from jaxdl.analysis import neighbors
from jaxdl.errors import InputError
from jaxdl.sharding import Placement, make_mesh
from jaxdl.tasks.image_text import ImageText, Retrieval
from launch import sample

MODEL = ["--model=clip", "--model.patch_size=4", "--model.width=8", "--model.num_layers=1", "--model.num_heads=2"]
MODEL += ["--model.text_width=8", "--model.text_num_layers=1", "--model.text_num_heads=2", "--model.projection_width=6"]
BASE = ["--task=image_text", *MODEL, "--dataset.image_size=8", "--steps=2", "--batch_size=16", "--seed=1"]
QUIET = ["--progress=off", "--tensorboard=false", "--mesh=data:1"]
WORDS = "red green blue bright dark square".split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """40 images, the even ones with two captions; and the same in folders of two classes."""
    path, random = tmp_path_factory.mktemp("pairs"), np.random.default_rng(0)
    lines = []
    for number in range(40):
        image = Image.fromarray(random.integers(0, 256, (9, 8, 3), dtype=np.uint8))
        for place in (path / "images", path / "classes" / ("cat" if number % 2 else "dog")):
            place.mkdir(parents=True, exist_ok=True)
            image.save(place / f"{number}.png")
        lines += [f"{number}.png,{' '.join(random.choice(WORDS, 3))}" for _ in range(2 - number % 2)]
    (path / "captions.csv").write_text("image,caption\n" + "\n".join(lines))
    return path


def flags_of(folder, kind):
    if kind == "captions":
        return [*BASE, "--dataset=image_captions", f"--dataset.path={folder / 'captions.csv'}"]
    return [*BASE, "--dataset=image_folder_captions", f"--dataset.path={folder / 'classes'}"]


def build(folder, kind="captions", *flags):
    return experiment.build(experiment.parse([*flags_of(folder, kind), *flags]), check=False)


class Fixed:
    """A forward function with embeddings that are given: images [B, D] of length 3, captions [V, D] by first token."""

    def __init__(self, images, texts):
        self.images, self.texts = images, texts

    def __call__(self, *inputs, method=None):
        if method == "encode_text":
            return self.texts[inputs[0][:, 0]]
        return jnp.stack([3 * self.images, self.texts[inputs[1][:, 0]]], axis=1)


def unit(size, seed):
    return jnp.asarray(neighbors.unit(np.random.default_rng(seed).normal(size=(size, 4))))


BATCH = {
    "inputs": jnp.zeros((6, 4, 4, 3)),
    "captions": jnp.arange(12, dtype=jnp.int32).reshape(6, 2, 1),
    "caption_lengths": jnp.array([[1, 1], [1, 0], [1, 1], [1, 0], [1, 1], [1, 1]], jnp.int32),
    "weight": jnp.array([1.0, 1, 1, 1, 1, 0]),
    "index": jnp.arange(6),
}


def test_the_loss_is_the_mean_of_both_cross_entropies():
    forward = Fixed(unit(6, 0), unit(12, 1))
    batch = {**BATCH, "caption_lengths": BATCH["caption_lengths"].at[:, 1].set(0)}  # one caption each
    batch.pop("weight")
    loss, values = ImageText().loss(forward, batch, jax.random.key(0))
    logits = 3 * np.asarray(forward.images) @ np.asarray(forward.texts[::2]).T
    log_softmax = lambda x: x - np.log(np.exp(x).sum(axis=1, keepdims=True))
    expected = -(np.diag(log_softmax(logits)) + np.diag(log_softmax(logits.T))).mean() / 2
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert values["scale"].compute() == pytest.approx(3, rel=1e-5)
    right = (logits.argmax(axis=1) == np.arange(6)).mean() / 2 + (logits.argmax(axis=0) == np.arange(6)).mean() / 2
    assert values["accuracy"].compute() == pytest.approx(right)


def test_training_draws_among_the_captions_that_are_there():
    seen = set()

    def forward(images, tokens, lengths):
        seen.update(np.asarray(tokens)[:, 0].tolist())
        return jnp.ones((6, 2, 4))

    for number in range(30):
        ImageText().loss(forward, BATCH, jax.random.key(number))
    assert seen == {0, 1, 2, 4, 5, 6, 8, 9, 10, 11}  # 3 and 7 are not there


@pytest.mark.parametrize("labels", [None, [0, 1, 0, 1, 1, 0]])
def test_recall_of_a_batch_without_padding_and_captions_that_are_not_there(labels):
    forward = Fixed(unit(6, 2), unit(12, 3))
    batch = BATCH if labels is None else {**BATCH, "labels": jnp.array(labels)}
    values = jax.device_get(ImageText().evaluate(forward, batch))
    real = np.asarray((BATCH["caption_lengths"] > 0) & (BATCH["weight"] > 0)[:, None]).ravel()
    classes = np.arange(6) if labels is None else np.array(labels)
    similarity = np.asarray(forward.images)[:5] @ np.asarray(forward.texts)[real].T
    relevant = classes[:5, None] == np.repeat(classes, 2)[real][None]
    for name, of_pairs, right in (
        ("image_to_text", similarity, relevant),
        ("text_to_image", similarity.T, relevant.T),
    ):
        for count, expected in neighbors.recall_at(of_pairs, right).items():
            assert values[f"{name}_recall_at_{count}"].compute() == pytest.approx(expected), (name, count)


def test_classes_by_their_sentences():
    sentences = np.array([[7], [4]], np.int32), np.array([1, 1], np.int32)
    texts = unit(12, 3).at[7].set(unit(6, 2)[0])  # the sentence of class 0 is the first image
    batch = {**BATCH, "labels": jnp.array([0, 0, 0, 1, 1, 1])}
    values = ImageText(sentences=sentences).evaluate(Fixed(unit(6, 2), texts), batch)
    logits = np.asarray(unit(6, 2)[:5] @ texts[jnp.array([7, 4])].T)
    expected = (logits.argmax(axis=1) == np.array([0, 0, 0, 1, 1])).mean()
    assert jax.device_get(values["zero_shot_accuracy"]).compute() == pytest.approx(expected)


def one_step(program, placement):
    """Parameters after a step, and the metrics of an evaluation batch that ends with padding."""
    batch = program.pipeline(16).batch(0)
    held = {**batch, "weight": np.float32([1] * 13 + [0] * 3), "index": np.arange(16, dtype=np.int32)}
    state = program.init(0, {name: value[:1] for name, value in batch.items()})
    # As they begin, all texts are nearly the same vector, and rounding would decide which is the nearest.
    random = np.random.default_rng(0)
    apart = lambda x: x + 0.5 * random.normal(size=x.shape).astype(x.dtype) if x.ndim else x
    state = state.replace(params=jax.tree.map(apart, state.params))
    new, _ = placement.parallel(program.step, (None, 0))(placement.replicate(state), placement.place_batch(batch))
    values = placement.parallel(program.evaluate, (None, 0))(new, placement.place_batch(held))
    return jax.device_get(new.params), {name: value.compute() for name, value in jax.device_get(values).items()}


@pytest.fixture(scope="module")
def reference(folder):
    program = build(folder, "captions", "--optimizer=sgd", "--learning_rate=0.1")
    return program, one_step(program, Placement(make_mesh("data:1")))


@pytest.mark.parametrize("mode", ["jit", "shard_map", "pmap"])
def test_eight_devices_equal_one(reference, mode):
    """The captions that are drawn, the negatives of all devices, and every metric."""
    program, one = reference
    eight = one_step(program, Placement(make_mesh("data:8"), mode))
    # Sums in another order, of one step of SGD.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), eight, one)


@pytest.mark.parametrize(
    ("kind", "flags", "told"),
    [
        ("captions", ["--batch_size=1"], "a single example: raise --batch_size"),
        ("captions", ["--model.max_length=3"], "more than max_length=3 positions"),
        ("captions", ["--dataset.image_size=6"], "6x6 pixels do not divide into patches of 4x4"),
        ("classes", ["--task.prompt=a photo"], "must have {} once"),
        (
            "classes",
            ["--task.prompt=a drawing of a {}"],
            "no training caption has the word 'drawing' of 'a drawing of a",
        ),
        ("digits", [], "needs images with captions, and this dataset has inputs, labels"),
    ],
)
def test_refusals(kind, flags, told, folder):
    given = flags_of(folder, kind)
    if kind == "digits":
        given = [flag for flag in BASE if not flag.startswith("--dataset.")] + ["--dataset=digits"]
    with pytest.raises(InputError, match=told):
        experiment.build(experiment.parse([*given, *flags]))


def test_a_run_shows_what_texts_find(folder, tmp_path, capsys):
    run = tmp_path / "run"
    result = experiment.run(experiment.parse([*flags_of(folder, "classes"), *QUIET, f"--workdir={run}"]))
    assert 0 <= result.metrics["test"]["zero_shot_accuracy"] <= 1
    text = (run / "samples" / "retrieval.txt").read_text()
    assert "8 images and 32 texts of test" in text and "zero-shot accuracy" in text
    capsys.readouterr()
    assert sample.main([f"--workdir={run}", "--text=a photo of a dog", "--count=3", "--split=train"]) == 0
    out = capsys.readouterr().out
    assert "image to text: recall@1" in out and (run / "samples" / "retrieved.png").stat().st_size > 1000
    with pytest.raises(InputError, match="no training caption has the word 'wolf'"):
        sample.main([f"--workdir={run}", "--text=a wolf"])
    with pytest.raises(InputError, match="--split=all: this dataset has"):
        sample.main([f"--workdir={run}", "--split=all"])


def test_the_samplers_recall_is_that_of_the_whole_split(folder):
    program = build(folder)
    state = program.init(0, program.pipeline(4).example())
    shown = program.task.sample(
        dataclasses.replace(Retrieval(), split="train"), program.model, program.variables(state), program.data, None
    )
    source = program.data.splits["train"]
    batch = {name: np.stack([source[index][name] for index in range(len(source))]) for name in source[0]}
    batch |= {"weight": np.ones(len(source), np.float32), "index": np.arange(len(source))}
    values = jax.device_get(program.evaluate(state, batch))
    for name, told in (("image_to_text", "image to text"), ("text_to_image", "text to image")):
        expected = 100 * values[f"{name}_recall_at_5"].compute()
        [line] = [line for line in shown["retrieval"].splitlines() if line.startswith(told)]
        assert f"recall@5 {expected:.1f} " in line
