"""Trials trained as one program are the same trials trained alone."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from PIL import Image

from jaxdl import config, experiment
from jaxdl.data import AUGMENTATIONS
from jaxdl.errors import InputError
from jaxdl.models import MODELS
from jaxdl.optimizers import OPTIMIZERS
from jaxdl.schedules import SCHEDULES
from jaxdl.settings import parse
from jaxdl.tasks import TASKS
from jaxdl.train.checkpoints import Checkpoints, finished_steps
from jaxdl.train.record import read_json, read_metrics
from tests.data import graph_files

COMMON = ["--plots=false", "--progress=off", "--tensorboard=false", "--mesh=data:2", "--steps=12", "--batch_size=16"]
COMMON += ["--log_every=4", "--eval_every=6", "--eval_batch_size=360"]
MLP = ["--model=mlp", "--model.widths=16", "--dataset=digits"]

ACTING = ["--dataset=cartpole", "--dataset.num_environments=16", "--dataset.time_limit=20", "--task.rollout_steps=4"]
ACTING += ["--task.minibatches=2", "--task.update_epochs=2"]

IMAGES = ["--dataset=digits", "--dataset.standardize=false"]
NOISE = ["--task.corruption=mask", "--task.corruption_level=0.2"]
PLAYERS = ["--model=dcgan", "--model.generator_widths=4", "--model.discriminator_widths=4", "--model.spectral_norm"]
PLAYERS += ["--task.latent_size=4", "--task.discriminator_steps=2"]

DENOISING = ["--task=diffusion", "--dataset=digits", "--dataset.standardize=false", "--task.class_conditional"]
DIT = ["--model=dit", "--model.patch_size=4", "--model.width=8", "--model.num_layers=1", "--model.num_heads=2"]

GRAPHS = ["--dataset=mutag", "--dataset.path=graphs.txt"]
NODES = ["--dataset=planetoid", "--dataset.path=citations.npz", "--batch_size=1", "--eval_batch_size=1"]
NODES += ["--mesh=data:1"]

WORDS = ["--dataset=stdlib", "--dataset.max_bytes=100000", "--dataset.length=8", "--dataset.tokenizer=word"]
ENCODER = ["--model.width=8", "--model.num_layers=1", "--model.num_heads=2", "--model.max_length=8"]
MASKED = [*ENCODER, "--task=masked_language_modeling", *WORDS, "--dataset.special_tokens=[MASK]"]
SUMS = ["--model.hidden_size=8", "--dataset=addition"]

# A sweep of each kind of training, and the flags of its trials.
KINDS = {
    "numbers of an MLP": (
        [*MLP, "--optimizer=sgd", "--schedule=cosine", "--schedule.warmup_fraction=0.2", "--ema_decay=0.9"],
        [
            ["--learning_rate=0.1", "--optimizer.momentum=0.5", "--model.dropout_rate=0.1", "--clip_norm=1"],
            ["--learning_rate=0.3", "--optimizer.momentum=0.9", "--model.dropout_rate=0.3", "--clip_norm=0.1"],
            [
                "--learning_rate=0.2",
                "--optimizer.momentum=0.7",
                "--model.dropout_rate=0.2",
                "--clip_norm=0.5",
                "--seed=3",
            ],
        ],
    ),
    "maximal update parametrization": (
        [*MLP, "--model.widths=16,16", "--parametrization=mup", "--base_width=4", "--optimizer=adamw"],
        [["--learning_rate=0.01", "--weight_decay=0.1"], ["--learning_rate=0.03", "--weight_decay=0.3", "--seed=1"]],
    ),
    "losses and penalties": (
        [*MLP, "--optimizer=adamw"],
        [
            ["--task.label_smoothing=0.1", "--weight_decay=0.01", "--l2_penalty=0.1", "--ema_decay=0.5"],
            ["--task.label_smoothing=0.3", "--weight_decay=0.1", "--l2_penalty=0.2", "--ema_decay=0.9"],
        ],
    ),
    "batch statistics and augmentation": (
        [
            "--model=resnet20",
            "--model.stage_sizes=1,1",
            "--model.width=4",
            "--dataset=digits",
            "--augment=gaussian_noise,mixup",
        ],
        [["--seed=1", "--augment.gaussian_noise.std=0.1"], ["--seed=2", "--augment.gaussian_noise.std=0.2"]],
    ),
    "microbatches in bfloat16": (
        [*MLP, "--gradient_accumulation=2", "--precision=bfloat16", "--model.dropout_rate=0.2"],
        [["--learning_rate=0.01"], ["--learning_rate=0.02"]],
    ),
    "float16 with a loss scale": ([*MLP, "--precision=float16"], [["--seed=0"], ["--seed=1"]]),
    "regression": (
        ["--model=mlp", "--task=regression", "--dataset=diabetes", "--plots=true"],
        [["--seed=0"], ["--seed=1"]],
    ),
    "the perceptron": (
        ["--model=perceptron", "--task.loss_function=perceptron", "--dataset=breast_cancer", "--optimizer=sgd"],
        [["--learning_rate=0.1", "--seed=4"], ["--learning_rate=1", "--seed=5"]],
    ),
    "reinforcement learning": (
        [*ACTING, "--task=ppo", "--model=actor_critic", "--model.widths=8", "--schedule=linear", "--clip_norm=0.5"],
        [["--learning_rate=0.01", "--seed=1"], ["--learning_rate=0.02", "--seed=2", "--task.clip_ratio=0.1"]],
    ),
    "language": (
        ["--model=gpt", "--task=language_modeling", *ENCODER, *WORDS],
        [["--model.dropout_rate=0.1", "--seed=1"], ["--model.dropout_rate=0.3", "--learning_rate=0.01"]],
    ),
    "masks that the loss draws": (["--model=bert", *MASKED], [["--seed=1"], ["--learning_rate=0.01"]]),
    "sequence to sequence": (
        ["--model=seq2seq", "--task=sequence_to_sequence", *SUMS],
        [["--model.sampling_rate=0.1", "--seed=1"], ["--model.sampling_rate=0.5", "--seed=2"]],
    ),
    "variational autoencoding": (
        [*IMAGES, "--model=vae", "--model.widths=8", "--task=autoencoding", "--task.corruption=mask"],
        [
            ["--task.beta=2", "--task.corruption_level=0.1", "--seed=1"],
            ["--task.beta=4", "--task.corruption_level=0.3", "--seed=2"],
        ],
    ),
    "two players": (
        [*IMAGES, "--task=adversarial", *PLAYERS, "--model.discriminator_normalization=none", "--optimizer=sgd"],
        [
            ["--task.gradient_penalty=1", "--learning_rate=0.01", "--seed=1"],
            ["--task.gradient_penalty=2", "--learning_rate=0.02", "--task.label_smoothing=0"],
        ],
    ),
    "diffusion": (
        [*DIT, *DENOISING, "--ema_decay=0.9", "--task.bound_terms=2"],
        [
            ["--task.condition_drop_rate=0.1", "--model.dropout_rate=0.2", "--seed=1"],
            ["--task.condition_drop_rate=0.4", "--model.dropout_rate=0.1"],
        ],
    ),
    "graphs": (
        [*GRAPHS, "--model=gin", "--model.width=4", "--model.num_layers=2", "--task=graph_classification"],
        [["--model.dropout_rate=0.1", "--seed=1"], ["--model.dropout_rate=0.3", "--seed=2"]],
    ),
    "nodes of one graph": (
        [*NODES, "--model=gat", "--model.width=4", "--model.num_heads=2", "--task=node_classification"],
        [["--model.dropout_rate=0.1", "--l2_penalty=0.01"], ["--model.dropout_rate=0.3", "--l2_penalty=0.1"]],
    ),
    # Evaluated among few and in many dimensions, so that rounding does not decide which of two views is the nearer.
    "two views": (
        [*MLP, "--model.widths=64", "--task=contrastive", "--augment=gaussian_noise", "--eval_batch_size=36"],
        [
            ["--task.temperature=0.2", "--seed=1", "--augment.gaussian_noise.std=0.1"],
            ["--task.temperature=0.5", "--seed=2", "--augment.gaussian_noise.std=0.2"],
        ],
    ),
    "batches from the host": ([*MLP, "--data_mode=host"], [["--seed=0"], ["--seed=1"], ["--learning_rate=0.01"]]),
}


def write_graphs(folder: pathlib.Path) -> list[str]:
    """Data of graphs there, and the flag that leads to it."""
    graph_files.write_mutag(folder / "graphs.txt")
    graph_files.write_planetoid(folder / "citations.npz")
    graph_files.write_molecules(folder / "molecules.csv", ["solubility"])
    return [f"--data_dir={folder}"]


def captioned_images(folder: pathlib.Path, number: int = 60) -> None:
    """captions.csv and as many images of noise as it has lines."""
    (folder / "images").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (number, 4, 4, 3), dtype=np.uint8)
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(folder / "images" / f"{index}.png")
    words = lambda index: f"{'a dog' if index % 2 else 'two cats'} {'runs' if index % 3 else 'sit'}"
    lines = [f"{index}.png,{words(index)}" for index in range(number)]
    (folder / "captions.csv").write_text("image,caption\n" + "\n".join(lines))


def together(base, trials, folder: pathlib.Path, **arguments):
    settings = [
        parse([*COMMON, *base, *flags, f"--workdir={folder / str(index)}"]) for index, flags in enumerate(trials)
    ]
    return experiment.run_trials(settings, folder / "group", **arguments)


def lines_are_close(ours: pathlib.Path, theirs: pathlib.Path, rtol: float) -> None:
    ours, theirs = read_metrics(ours), read_metrics(theirs)
    assert [(line["step"], line["split"]) for line in ours] == [(line["step"], line["split"]) for line in theirs]
    for a, b in zip(ours, theirs):
        assert set(a) == set(b)
        for name in set(a) - {"split"}:
            np.testing.assert_allclose(a[name], b[name], rtol=rtol, atol=rtol, err_msg=f"{name} at step {a['step']}")


def arrays_are_close(ours, theirs, **_) -> None:
    """By the length of the difference. Twelve steps of 0.01 or 0.02 go several times as far."""
    assert np.linalg.norm(ours - theirs) <= 0.05 * np.linalg.norm(theirs) + 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_each_trial_is_what_it_is_alone(kind, tmp_path):
    base, trials = KINDS[kind]
    base = [*write_graphs(tmp_path), *base] if {"--dataset=mutag", "--dataset=planetoid"} & set(base) else base
    results = together(base, trials, tmp_path)
    assert [(result.status, result.ended, result.step) for result in results] == [(0, "done", 12)] * len(trials)
    # Sums in another order; half precision rounds at 4e-3 and 5e-4, and the steps carry that on: where a gradient is
    # all rounding, Adam goes the other way, so weights are compared as arrays there.
    rtol = 2e-2 if "bfloat16" in kind else 5e-3 if "float16" in kind else 2e-4
    for index, flags in enumerate(trials):
        alone = experiment.run(parse([*COMMON, *base, *flags, f"--workdir={tmp_path / 'alone'}{index}"]))
        lines_are_close(tmp_path / str(index), tmp_path / f"alone{index}", rtol)
        close = arrays_are_close if "float" in kind else np.testing.assert_allclose
        for a, b in zip(*map(jax.tree.leaves, (results[index].state.params, jax.device_get(alone.state.params)))):
            close(a, b, rtol=rtol, atol=rtol)
        assert read_json(tmp_path / str(index) / "status.json")["state"] == "done"
        drawn = {path.name for path in (tmp_path / f"alone{index}").glob("plots/*.png")}
        assert {path.name for path in (tmp_path / str(index)).glob("plots/*.png")} == drawn
        assert bool(drawn) == ("--plots=true" in base)
    assert not (tmp_path / "group" / "checkpoints").exists()


def numeric_fields():
    """Every number of the catalogs that a compiled program is to take as an argument, by the flags that choose it."""
    from jaxdl.settings import COMMON as COMMON_PARTS

    chosen = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "task": TASKS, "model": MODELS}
    parts = [("", COMMON_PARTS["update"], [])]
    parts += [(kind, entry, [f"--{kind}={name}"]) for kind, names in chosen.items() for name, entry in names.items()]
    parts += [(f"augment.{name}", entry, [f"--augment={name}"]) for name, entry in AUGMENTATIONS.items()]
    seen = set()
    for prefix, entry, flags in parts:
        cls = entry.load()
        for name, field in config.fields_of(cls).items():
            if field.kind is float and not field.many and (cls, name) not in seen:
                seen.add((cls, name))
                yield pytest.param(prefix, name, field, flags, id=f"{cls.__name__}.{name}")


_RECURRENT = ["--model.hidden_size=8", *WORDS]
_CLIP = ["--task=image_text", "--dataset=image_captions", "--dataset.path=captions.csv", "--dataset.image_size=4"]
_CLIP += ["--model.patch_size=2", "--model.width=8", "--model.num_layers=1", "--model.num_heads=2"]
_CLIP += ["--model.text_width=8", "--model.text_num_layers=1", "--model.text_num_heads=2", "--model.projection_width=4"]
_OF_NODES = [*NODES, "--task=node_classification"]
_OF_GRAPHS = [*GRAPHS, "--task=graph_classification"]
_OF_MOLECULES = ["--dataset=molecules", "--dataset.path=molecules.csv", "--dataset.targets=solubility"]

SMALL = {
    "vit": ["--model.patch_size=4", "--model.width=8", "--model.num_layers=1", "--model.num_heads=2"],
    "bert_classifier": [*ENCODER, "--dataset=labelled_text", "--dataset.path=texts.tsv"],
    "bert": MASKED,
    "masked_language_modeling": ["--model=bert", *MASKED],
    "diffusion": [*DIT, *DENOISING],
    "autoencoding": [*IMAGES, "--model=vae", "--model.widths=8", "--task.likelihood=gaussian", *NOISE],
    "autoencoder": [*IMAGES, "--task=autoencoding"],
    "adversarial": [*IMAGES, *PLAYERS, "--model.discriminator_normalization=none"],
    "dit": [*DIT, *DENOISING],
    "unet": [
        "--model.width=4",
        "--model.multipliers=1",
        "--model.blocks_per_level=1",
        "--model.num_groups=2",
        *DENOISING,
    ],
    "resnet": ["--model.stage_sizes=1", "--model.width=4"],
    "cnn": ["--model.widths=4"],
    "contrastive": ["--augment=gaussian_noise"],
    "clip": _CLIP,
    "step": ["--schedule.every=5"],
    "regression": ["--dataset=diabetes"],
    "language_modeling": ["--model=lstm_lm", *_RECURRENT],
    "rnn_lm": ["--task=language_modeling", *_RECURRENT],
    "gpt": ["--task=language_modeling", *ENCODER, *WORDS],
    "sequence_to_sequence": ["--model=seq2seq", *SUMS],
    "gcn": _OF_NODES,
    "gat": _OF_NODES,
    "graphsage": _OF_NODES,
    "node_classification": ["--model=gcn", *_OF_NODES],
    "link_prediction": ["--model=gcn", *NODES, "--dataset.predict=links"],
    "gin": _OF_GRAPHS,
    "mpnn": _OF_GRAPHS,
    "graph_classification": ["--model=gin", *_OF_GRAPHS],
    "graph_regression": ["--model=gin", *_OF_MOLECULES],
    "ppo": ["--model=actor_critic", "--model.widths=8", *ACTING],
    "actor_critic": ["--task=ppo", "--model.widths=8", *ACTING],
    "seq2seq": ["--task=sequence_to_sequence", *SUMS],
}
"""What else a choice needs, by the beginning of its name."""


@pytest.mark.parametrize("prefix, name, field, flags", numeric_fields())
def test_every_number_of_the_catalog_is_an_argument_or_says_that_it_is_not(prefix, name, field, flags, tmp_path):
    """One traced step of two trials; nothing is computed."""
    from jaxdl.train.trials import Trials

    flag = f"--{prefix}.{name}" if prefix else f"--{name}"
    bounds = field.bounds
    values = [value for value in (0.3, 0.6, 1.5, 2.5) if bounds is None or value in bounds][:2]
    chosen = flags[0].partition("=")[2] if flags else ""
    extra = next((more for start, more in SMALL.items() if chosen.startswith(start)), [])
    given = prefix == "model" or any(flag.startswith("--model=") for flag in extra)
    model = [] if given else ["--model=mlp", "--model.widths=8"]
    model = ["--model.activation=leaky_relu"] if name == "activation_parameter" else model
    base = ["--dataset=digits", "--steps=9", "--batch_size=8", *model, *flags, *extra]
    if chosen.startswith("lenet"):  # digits are too small for it
        path = tmp_path / "images.npz"
        np.savez(path, inputs=np.zeros((200, 28, 28, 1), np.uint8), labels=np.arange(200) % 10)
        base += ["--dataset=arrays", f"--dataset.path={path}"]
    if chosen == "glove":
        (tmp_path / "words.txt").write_text("a b c d e f\n" * 9)
        data = ["--dataset=cooccurrence", f"--dataset.path={tmp_path / 'words.txt'}", "--dataset.length=2"]
        base = ["--model=glove", "--steps=9", "--batch_size=8", *flags, *data]
    if any(flag.endswith((".npz", "graphs.txt", "molecules.csv")) for flag in extra):
        base += write_graphs(tmp_path)
    if "--dataset=molecules" in extra:
        pytest.importorskip("rdkit")
    if "--dataset=labelled_text" in extra:
        (tmp_path / "texts.tsv").write_text("a b c\t0\nb c\t1\n" * 50)
        base += [f"--data_dir={tmp_path}"]
    if chosen.startswith("clip"):
        captioned_images(tmp_path)
        base += [f"--data_dir={tmp_path}"]
    trials = [parse([*base, f"{flag}={value}"]) for value in values]
    if len({trial.program_key() for trial in trials}) > 1:
        part = prefix or "update"
        assert name in trials[0].classes[part].untraceable, "two programs, and the class does not say so"
        return
    program = experiment.build(trials[0])

    def at(numbers):
        parts = experiment._parts(trials[0].with_numbers(numbers), program.data, {})
        return experiment.dataclasses.replace(program, **parts)

    both = Trials(at, [trial.numbers() for trial in trials], [0, 0])
    assert list(both.numbers) == [(prefix or "update", name)]
    experiment.trace(both, trials[0])


def test_what_cannot_be_traced_is_named(tmp_path, write_module):
    source = """
import flax.linen as nn

class Branching(nn.Module):
    threshold: float = 0.5
    scale: float = 1.0
    num_outputs: int = 10

    @nn.compact
    def __call__(self, inputs, *, train):
        inputs = inputs.reshape(len(inputs), -1) * self.scale
        return nn.Dense(self.num_outputs)(inputs if self.threshold > 0.4 else -inputs)
"""
    write_module("branching", source)
    base = ["--model=branching:Branching", "--dataset=digits"]
    trials = [[f"--model.threshold={value}", f"--model.scale={value}"] for value in (0.3, 0.6)]
    with pytest.raises(InputError, match="--model.threshold cannot vary within one program .*--executor=local"):
        together(base, trials, tmp_path)
    assert not (tmp_path / "0").exists()


@pytest.mark.parametrize(
    "one, other, told",
    [
        ("--model.widths=16", "--model.widths=32", "model.widths differ"),
        ("--learning_rate=0", "--learning_rate=1", "update.learning_rate differ"),
        ("--on_nonfinite=rollback", "--on_nonfinite=rollback", "--executor=local"),
    ],
)
def test_runs_that_are_not_one_program_are_refused(one, other, told, tmp_path):
    with pytest.raises(InputError, match=told):
        together(["--model=mlp", "--dataset=digits"], [[one], [other]], tmp_path)


def test_one_trial_may_end_before_the_others(tmp_path):
    """By patience, by a loss that is not finite, by the file `stop`; the others are what they are alone."""
    base = [*MLP, "--optimizer=sgd", "--patience=1", "--eval_every=3", "--steps=18", "--log_every=3"]
    trials = [["--learning_rate=1e-9"], ["--learning_rate=1e38"], ["--learning_rate=0.4"], ["--learning_rate=0.1"]]
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "stop").write_text("pruned")
    results = together(base, trials, tmp_path)
    assert [result.ended for result in results] == ["done", "diverged", "stopped", "done"]
    assert [result.step < 18 for result in results] == [True, True, True, False]
    statuses = [read_json(tmp_path / str(index) / "status.json") for index in range(4)]
    assert [status["state"] for status in statuses] == ["done", "diverged", "stopped", "done"]
    assert "not finite at step" in statuses[1]["error"]
    for index in (0, 3):
        alone = experiment.run(parse([*COMMON, *base, *trials[index], f"--workdir={tmp_path / 'alone'}{index}"]))
        lines_are_close(tmp_path / str(index), tmp_path / f"alone{index}", 2e-4)
        assert alone.step == results[index].step and alone.best_step == results[index].best_step
    # Each is evaluated like any other run, by its own checkpoint.
    step, values = experiment.evaluate(tmp_path / "0", "validation", overrides=["--mesh=data:1"])
    line = next(line for line in read_metrics(tmp_path / "0") if line["step"] == step and line["split"] == "validation")
    assert values["loss"] == pytest.approx(line["loss"], rel=1e-5)


def test_a_trial_goes_on_alone_from_its_own_checkpoint(tmp_path):
    base = [*MLP, "--schedule=constant"]
    together(base, [["--seed=0"], ["--seed=1"]], tmp_path)
    longer = ["--steps=24", f"--workdir={tmp_path / '1'}"]
    result = experiment.run(parse([*COMMON, *base, "--seed=1", *longer]))
    whole = experiment.run(parse([*COMMON, *base, "--seed=1", "--steps=24", f"--workdir={tmp_path / 'whole'}"]))
    assert result.step == 24
    lines_are_close(tmp_path / "1", tmp_path / "whole", 2e-4)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4)
    jax.tree.map(close, jax.device_get(result.state.params), jax.device_get(whole.state.params))


@pytest.mark.parametrize(("flags", "saved"), [([], [3, 18]), (["--checkpoint_every=6"], [6, 12, 18])])
def test_common_checkpoints_are_written_now_and_then_or_as_the_flag_says(flags, saved, tmp_path, monkeypatch):
    """Which they are depends on the clock, and what the trials leave does not: their best steps are kept in memory."""
    monkeypatch.setattr("jaxdl.train.trial_checkpoints.SECONDS_BETWEEN", 1000.0)
    written, save = [], Checkpoints.save
    record = lambda self, step, *rest: (written.append(step), save(self, step, *rest))[1]
    monkeypatch.setattr(Checkpoints, "save", record)
    base = [*MLP, "--optimizer=sgd", "--learning_rate=0.1", "--eval_every=3", "--steps=18", "--log_every=3", *flags]
    # The second is best at one of the steps between, from which its loss grows.
    results = together(base, [["--seed=0"], ["--learning_rate=1.0", "--seed=1"]], tmp_path)
    assert set(saved) <= set(written) and (flags or sorted(set(written)) == saved)
    assert 3 < results[1].best_step < 18
    for index, result in enumerate(results):
        step, values = experiment.evaluate(tmp_path / str(index), "validation", overrides=["--mesh=data:1"])
        assert step == result.best_step
        lines = read_metrics(tmp_path / str(index))
        line = next(line for line in lines if (line["step"], line["split"]) == (step, "validation"))
        assert values["loss"] == pytest.approx(line["loss"], rel=1e-5)


CHILD = """
import sys
from jaxdl import experiment
from jaxdl.settings import parse
folder, *flags = sys.argv[1:]
settings = [parse([*flags, f"--seed={seed}", f"--workdir={folder}/{seed}"]) for seed in range(3)]
sys.exit(max(result.status for result in experiment.run_trials(settings, f"{folder}/group")))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_stopped_trials_go_on_together(number, tmp_path):
    flags = [*COMMON, *MLP, "--steps=4000", "--log_every=50", "--eval_every=200", "--steps_per_dispatch=10"]
    command = lambda folder: [sys.executable, "-c", CHILD, str(tmp_path / folder), *flags]
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[2])}
    whole = subprocess.run(command("whole"), env=environment, capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr
    process = subprocess.Popen(command("stopped"), env=environment, stdout=subprocess.DEVNULL)
    for _ in range(600):
        time.sleep(0.1)
        if finished_steps(tmp_path / "stopped" / "group"):
            break
    process.send_signal(number)
    assert process.wait() == (75 if number == signal.SIGTERM else -number)
    if number == signal.SIGTERM:
        status = read_json(tmp_path / "stopped" / "0" / "status.json")
        assert status["state"] == "preempted"
        assert max(finished_steps(tmp_path / "stopped" / "group")) == status["step"], "of a moment ago or not"
        assert finished_steps(tmp_path / "stopped" / "0"), "each has its own, too"
    again = subprocess.run(command("stopped"), env=environment, capture_output=True, text=True)
    assert again.returncode == 0 and "from the checkpoint at step" in again.stdout, again.stderr
    for seed in "012":
        ours, theirs = ((tmp_path / folder / seed / "metrics.jsonl").read_text() for folder in ("stopped", "whole"))
        assert ours == theirs
        assert json.loads(ours.splitlines()[-1])["step"] == 4000
