"""The language-modelling task: exact sums over tokens and bytes, and texts from a prompt."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import experiment
from jaxdl.data.base import Data
from jaxdl.data.pipeline import eval_batches
from jaxdl.data.sources import ArraySource
from jaxdl.data.text import Document, LanguageFlags
from jaxdl.data.tokenizers import ByteTokenizer, CharacterTokenizer
from jaxdl.errors import InputError
from jaxdl.tasks.language_modeling import LanguageModeling, TextSampler
from jaxdl.train.record import read_metrics
from tests.tasks.tiny_language_model import TinyLanguageModel

TEXT = "abacabad" * 30
VOCABULARY = CharacterTokenizer("abcd")


def model_and_variables(**fields):
    model = TinyLanguageModel(**fields)
    return model, model.init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32), train=False)


def evaluate(task, source, model, variables, batch_size):
    total = None
    for batch in eval_batches(source, batch_size):
        forward = lambda *inputs: model.apply(variables, *inputs, train=False)
        found = task.evaluate(forward, {name: jnp.asarray(value) for name, value in batch.items()})
        total = found if total is None else {name: total[name].merge(found[name]) for name in found}
    return {name: metric.compute() for name, metric in total.items()}


@pytest.mark.parametrize("packing", ["windows", "documents"])
@pytest.mark.parametrize("batch_size", [1, 7])
def test_metrics_are_sums_over_every_target_once(packing, batch_size):
    text = "é" + "abaca bad é" * 5 + "d"
    flags = LanguageFlags(tokenizer="byte", length=9, packing=packing)
    data = flags.data({"train": [Document(TEXT, "x")], "validation": [Document(text, "y")]})
    model, variables = model_and_variables(vocab_size=256)
    values = evaluate(LanguageModeling(), data.splits["validation"], model, variables, batch_size)
    end = np.zeros(int(packing == "documents"), np.int32)  # of a document
    tokens = np.append(data.tokenizer.encode(text), end)
    before = np.concatenate([[0], tokens[:-2]])
    before[np.arange(len(before)) % 9 == 0] = 0  # where a window or a piece begins
    logits = model.apply(variables, before[None], tokens[None, :-1], method="_logits")[0]
    nll = -np.asarray(jax.nn.log_softmax(logits))[np.arange(len(logits)), tokens[1:]]
    np.testing.assert_allclose(values["loss"], nll.mean(), rtol=1e-6)
    np.testing.assert_allclose(values["perplexity"], math.exp(nll.mean()), rtol=1e-6)
    np.testing.assert_allclose(values["accuracy"], (logits.argmax(-1) == tokens[1:]).mean(), rtol=1e-6)
    # A byte is a token, but for the end, which is no byte of the text; the first token is no target.
    num_bytes = len(text.encode()) / len(tokens) * (len(tokens) - 1)
    np.testing.assert_allclose(values["bits_per_byte"], nll.sum() / math.log(2) / num_bytes, rtol=1e-6)


def test_padding_changes_nothing():
    task, (model, variables) = LanguageModeling(label_smoothing=0.1), model_and_variables()
    rng = np.random.default_rng(0)
    batch = {
        "inputs": jnp.asarray(rng.integers(0, 4, (3, 5))),
        "targets": jnp.asarray(rng.integers(0, 4, (3, 5))),
        "token_weight": jnp.asarray([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]], jnp.float32),
        "segments": jnp.ones((3, 5), jnp.int32),
    }
    other = {name: value for name, value in batch.items()}
    for name in ("inputs", "targets"):
        other[name] = jnp.where(batch["token_weight"] > 0, batch[name], 3)

    def loss(variables, batch):
        return task.loss(lambda *inputs: model.apply(variables, *inputs, train=True), batch, jax.random.key(0))[0]

    values = [jax.value_and_grad(loss)(variables, part) for part in (batch, other)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), *values)


def test_segments_reach_the_model():
    batch = {"inputs": jnp.zeros((1, 3), jnp.int32), "segments": jnp.ones((1, 3), jnp.int32), "token_weight": 0}
    assert len(LanguageModeling().inputs(batch)) == 2
    assert len(LanguageModeling().inputs({"inputs": batch["inputs"]})) == 1


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny model that has learned "abacabad" by heart, and its data."""
    folder = tmp_path_factory.mktemp("text")
    (folder / "text.txt").write_text(TEXT)
    flags = ["--model=tests.tasks.tiny_language_model:TinyLanguageModel", "--task=language_modeling", "--dataset=text"]
    flags += [f"--data_dir={folder}", "--dataset.path=text.txt", "--dataset.length=8", "--learning_rate=0.03"]
    flags += ["--steps=200", "--batch_size=16", f"--workdir={folder / 'run'}", "--progress=off", "--mesh=data:1"]
    result = experiment.run(experiment.parse(flags))
    return folder / "run", result


def test_a_run_leaves_samples_figures_and_its_vocabulary(trained):
    run, result = trained
    assert result.metrics["validation"]["loss"] < 0.45  # what two tokens cannot tell: b is before a, then c or d
    for name in ("loss_by_position", "surprisal", "learning_curves"):
        assert (run / "plots" / f"{name}.png").stat().st_size > 1000
    assert (run / "vocabulary.json").read_text() == VOCABULARY.to_json()
    with pytest.raises(InputError, match="the prompt is empty"):  # "\n" is not in the vocabulary
        TextSampler().sample(*model_and_variables(), Data({}, tokenizer=VOCABULARY), jax.random.key(0))
    assert not (run / "samples").exists()


def test_windows_made_on_the_device_are_those_of_the_host(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    flags = ["--model=tests.tasks.tiny_language_model:TinyLanguageModel", "--task=language_modeling", "--dataset=text"]
    flags += [f"--data_dir={tmp_path}", "--dataset.path=text.txt", "--dataset.length=8", "--steps=7", "--batch_size=4"]
    flags += ["--progress=off", "--plots=false", "--mesh=data:2"]
    for mode in ("host", "device"):
        experiment.run(experiment.parse([*flags, f"--data_mode={mode}", f"--workdir={tmp_path / mode}"]))
    for host, device in zip(*(read_metrics(tmp_path / mode) for mode in ("host", "device")), strict=True):
        assert host.pop("split") == device.pop("split")
        assert host == pytest.approx(device, rel=1e-5)


def test_packed_documents_train_the_same_on_any_devices(tmp_path):
    """Shards have different numbers of targets; the mean is over all of them."""
    (tmp_path / "text.txt").write_text("".join("abcd"[: 1 + n % 4] * (1 + n % 3) + "\n" for n in range(200)))
    flags = ["--model=tests.tasks.tiny_language_model:TinyLanguageModel", "--task=language_modeling", "--dataset=text"]
    flags += [f"--data_dir={tmp_path}", "--dataset.path=text.txt", "--dataset.documents=line", "--dataset.length=12"]
    flags += ["--dataset.packing=documents", "--batch_size=8", "--steps=6", "--log_every=2", "--eval_every=3"]
    flags += ["--optimizer=sgd", "--plots=false", "--progress=off"]
    runs = {
        "one": ["--mesh=data:1"],
        "eight": ["--mesh=data:8"],
        "shards": ["--mesh=data:4", "--parallelism=shard_map"],
    }
    for name, more in runs.items():
        experiment.run(experiment.parse([*flags, *more, f"--workdir={tmp_path / name}"]))
    one, *others = ([{**line, "split": 0} for line in read_metrics(tmp_path / name)] for name in runs)
    for other in others:
        for ours, theirs in zip(one, other, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4)


def test_samples_go_on_from_the_prompt_beyond_the_context(trained):
    run, _ = trained
    _, program, _, _, state = experiment.restore(run)
    given = program.model, program.variables(state), program.data, jax.random.key(1)
    samples = TextSampler(prompt="ab", num_samples=2, max_tokens=41, temperature=0.3).sample(*given)
    assert list(samples) == ["sample_0", "sample_1"]
    for text in samples.values():
        assert text.startswith("aba") and len(text) == 43
        assert all(part in ("", "c", "d") for part in text.replace("aba", " ").split(" ")[:-1])
    greedy = TextSampler(prompt="ab", max_tokens=10, temperature=0, num_samples=1).sample(*given)["sample_0"]
    best = TextSampler(prompt="ab", max_tokens=10, beams=4, num_samples=4).sample(*given)
    assert len(best) == 4 and len(set(best.values())) == 4
    assert greedy.startswith("aba")


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(prompt="abx"), r"character 'x' \(number 2, from 0\) is not in the vocabulary"),
        (dict(prompt="a" * 17), "the prompt of 17 tokens is longer than the 16 that the model can see"),
        (dict(prompt="aaa", context=2), "the prompt of 3 tokens is longer than the 2"),
        (dict(prompt="a", beams=2, max_tokens=20), "lower --max_tokens"),
        (dict(), "the prompt is empty"),
    ],
)
def test_prompts_that_cannot_be_are_refused_in_one_line(fields, message):
    with pytest.raises(InputError, match=message) as caught:
        TextSampler(**fields).sample(*model_and_variables(), Data({}, tokenizer=VOCABULARY), jax.random.key(0))
    assert "\n" not in str(caught.value)


def test_a_model_that_cannot_generate_is_named():
    from jaxdl.models.mlp import MLP

    with pytest.raises(InputError, match="model MLP cannot generate"):
        TextSampler(prompt="a").sample(MLP(), {}, Data({}, tokenizer=VOCABULARY), jax.random.key(0))


def test_a_text_ends_at_its_end():
    class Ender:
        """Says a, then the end, then b for ever."""

        max_length = None

        def start(self): ...
        def step(self): ...

        def apply(self, variables, *arguments, method):
            if method == "start":
                tokens, _, _ = arguments
                return (jnp.zeros(len(tokens), jnp.int32),), jnp.broadcast_to(
                    10.0 * jax.nn.one_hot(97, 256), (len(tokens), 256)
                )
            (place,), token = arguments
            choice = jnp.where(place == 0, 0, 98)
            return (place + 1,), 10.0 * jax.nn.one_hot(choice, 256)

    for stop, text in ((True, "xa"), (False, "xabb")):
        sampler = TextSampler(prompt="x", max_tokens=4, num_samples=1, temperature=0, stop_at_end=stop)
        data = Data({}, tokenizer=ByteTokenizer(end_of_text=True))
        assert sampler.sample(Ender(), {}, data, jax.random.key(0)) == {"sample_0": text}


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"inputs": np.zeros((2, 3), np.int32)}, "needs inputs, targets and token_weight"),
        (
            {
                "inputs": np.full((2, 3), 4, np.int32),
                "targets": np.zeros((2, 3), np.int32),
                "token_weight": np.ones((2, 3), np.float32),
            },
            "inputs of row 0 has 4, and must be from 0 to 3",
        ),
    ],
)
def test_data_that_does_not_fit_is_refused(arrays, message):
    with pytest.raises(InputError, match=message):
        LanguageModeling().check(Data({"train": ArraySource(arrays)}, tokenizer=VOCABULARY))


def test_data_without_text_is_refused():
    with pytest.raises(InputError, match="language modelling needs text"):
        experiment.build(experiment.parse(["--model=gpt", "--task=language_modeling", "--dataset=digits", "--steps=1"]))
