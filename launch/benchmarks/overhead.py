"""What the framework costs: a run of `launch.train` against a bare loop written by hand."""

import dataclasses
import functools
import json
import math
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence

import numpy as np

from jaxdl.errors import InputError
from jaxdl.types import PositiveInt
from launch.benchmarks.process import run_module, spread

WANTED = {"steps/s": (0.95, math.inf), "peak MiB": (0.0, 1.10)}
"""Bounds of the ratio of `launch.train` to the bare loop."""

LEARNING_RATE = 0.1
LOG_EVERY = 100


@dataclasses.dataclass(frozen=True)
class Overhead:
    """What the framework costs: a run of `launch.train` against a bare loop written by hand.

    Trains LeNet-5 on random 28x28 images twice, by `launch.train` and by the bare loop, in turns, each time in a
    process of its own. Both start from the same parameters and see the same batches, so both must end with the same
    loss. Then reads the same batches through the input pipeline alone. Flags that are not of this command go to
    `launch.train`.

    Attributes:
      steps: Steps of a run, a multiple of 100.
      batch_size: Examples in a step.
      examples: Examples in the training split.
      repeats: Runs of each of the two.
    """

    steps: PositiveInt = 1000
    batch_size: PositiveInt = 64
    examples: PositiveInt = 60_000
    repeats: PositiveInt = 3

    def run(self, train_flags: Sequence[str]) -> int:
        """Measures, prints the table, and gives the exit status."""
        if self.steps % LOG_EVERY:
            raise InputError(f"--steps={self.steps}: expected a multiple of {LOG_EVERY}, for whole means of the loss.")
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "images.npz"
            write_images(path, self.examples)
            bare, train = [], []
            for repeat in range(self.repeats):
                print(f"run {repeat + 1} of {self.repeats} of each ...", file=sys.stderr, flush=True)
                bare.append(self._run_bare(path))
                train.append(self._run_train(path, pathlib.Path(folder) / f"run{repeat}", train_flags))
            pipeline = [examples_per_second(path, self.steps, self.batch_size) for _ in range(self.repeats)]
        return report(bare, train, pipeline, self)

    def _run_bare(self, path: pathlib.Path) -> dict[str, float]:
        command = ["launch.benchmarks.overhead", str(path), str(self.steps), str(self.batch_size)]
        output, measured = run_module(*command)
        return self._with_whole(measured | json.loads(output.splitlines()[-1]))

    def _run_train(self, path: pathlib.Path, workdir: pathlib.Path, train_flags: Sequence[str]) -> dict[str, float]:
        settings = {
            **{"model": "lenet5", "task": "classification", "optimizer": "sgd", "learning_rate": LEARNING_RATE},
            **{"dataset": "arrays", "dataset.path": path, "dataset.test_fraction": 0, "dataset.validation_fraction": 0},
            **{"steps": self.steps, "batch_size": self.batch_size, "log_every": LOG_EVERY, "workdir": workdir},
            "compilation_cache": "none",  # both compile
            "plots": "false",  # the bare loop draws none
        }
        arguments = [f"--{name}={value}" for name, value in settings.items()]
        _, measured = run_module("launch.train", *arguments, *train_flags)
        status = json.loads((workdir / "status.json").read_text())
        last = json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])
        return self._with_whole(measured | {"steps/s": status["steps_per_second"], "loss": last["loss"]})

    def _with_whole(self, measured: dict[str, float]) -> dict[str, float]:
        return measured | {"steps/s, start to exit": self.steps / measured["seconds"]}


def write_images(path: pathlib.Path, examples: int) -> None:
    """Random images and labels of the shape of MNIST, as the dataset `arrays` reads them."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (examples, 28, 28, 1), np.uint8)
    np.savez(path, inputs=images, labels=rng.integers(0, 10, examples, np.int32))


def bare_loop(path: str, steps: int, batch_size: int) -> dict[str, float]:
    """The loop that one writes by hand: data on the device, a jitted step that donates its state, a look at the loss.

    Returns:
      steps/s: from the first step to the last, without compilation.
      loss: the mean over the last 100 steps.
    """
    import jax
    import jax.numpy as jnp

    from jaxdl.models.lenet import LeNet5

    with np.load(path) as arrays:
        images, labels = arrays["inputs"], arrays["labels"]
    mean = images.mean() / 255
    std = math.sqrt(sum(np.square(part / 255 - mean).sum() for part in np.array_split(images, 100)) / images.size)
    epochs = math.ceil(steps * batch_size / len(labels))
    order = np.concatenate([np.random.default_rng((0, epoch)).permutation(len(labels)) for epoch in range(epochs)])
    rows = order[: steps * batch_size].reshape(steps, batch_size).astype(np.int32)
    images, labels, rows = jax.device_put((images, labels, rows))

    model = LeNet5()
    key = jax.random.fold_in(jax.random.key(0), 0)
    params = jax.jit(functools.partial(model.init, train=False))(key, jnp.zeros((1, 28, 28, 1)))["params"]

    @functools.partial(jax.jit, donate_argnums=0)
    def step(carry, images, labels, rows):
        index, params, total = carry
        chosen = rows[index]
        inputs = (images[chosen] / jnp.float32(255) - mean) / std

        def loss_of(params):
            log_probabilities = jax.nn.log_softmax(model.apply({"params": params}, inputs, train=True))
            return -jnp.take_along_axis(log_probabilities, labels[chosen][:, None], axis=1).mean()

        loss, gradient = jax.value_and_grad(loss_of)(params)
        params = jax.tree.map(lambda param, slope: param - LEARNING_RATE * slope, params, gradient)
        return index + 1, params, total + loss

    carry = (jnp.int32(0), params, jnp.float32(0))
    compiled = step.lower(carry, images, labels, rows).compile()
    began, before = time.monotonic(), 0.0
    for done in range(1, steps + 1):
        carry = compiled(carry, images, labels, rows)
        if done % LOG_EVERY == 0:
            total = float(carry[2])
            loss, before = (total - before) / LOG_EVERY, total
    return {"steps/s": steps / (time.monotonic() - began), "loss": loss}


def examples_per_second(path: pathlib.Path, steps: int, batch_size: int) -> float:
    """How fast the input pipeline alone reads batches from arrays in memory, as `launch.train` asks it to."""
    from jaxdl.data.pipeline import Pipeline
    from jaxdl.data.tables import Arrays
    from jaxdl.train.settings import TrainerConfig

    data = Arrays(path=str(path), test_fraction=0.0, validation_fraction=0.0, standardize=False).load()
    pipeline, trainer = Pipeline(data.splits["train"], batch_size=batch_size, seed=0), TrainerConfig()
    batches = pipeline.iterate(0, steps + 1, prefetch=trainer.prefetch, num_threads=trainer.data_threads)
    next(batches)  # starts the threads
    began = time.monotonic()
    read = sum(len(batch["labels"]) for batch in batches)
    return read / (time.monotonic() - began)


def report(bare: list[dict], train: list[dict], pipeline: list[float], settings: Overhead) -> int:
    """Prints medians, least and most; gives 0 when every median ratio is as wanted, else 1."""
    print(f"LeNet-5, {settings.steps} steps of {settings.batch_size} of {settings.examples} images")
    print(f"{os.cpu_count()} cores; median (least to most) of {settings.repeats} runs of each, in turns\n")
    print(f"{'':24}{'bare loop':>28}{'launch.train':>28}{'ratio':>24}  wanted")
    failed = False
    for name in ("steps/s", "steps/s, start to exit", "seconds", "CPU seconds", "peak MiB"):
        ours, theirs = [run[name] for run in train], [run[name] for run in bare]
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        low, high = WANTED.get(name, (0.0, math.inf))
        wanted = "" if name not in WANTED else f"at least {low:.2f}" if low else f"at most {high:.2f}"
        failed |= not low <= statistics.median(ratios) <= high
        columns = f"{spread(theirs, '.1f'):>28}{spread(ours, '.1f'):>28}{spread(ratios, '.3f'):>24}"
        print(f"{name:24}{columns}  {wanted}".rstrip())
    print(f"{'input pipeline':24}{'':28}{spread(pipeline, ',.0f'):>28}  examples/s, read on the host")
    losses = [run["loss"] for run in (*bare, *train)]
    print(f"\nloss, mean of the last {LOG_EVERY} steps: bare {losses[0]:.6f}, launch.train {losses[-1]:.6f}")
    if max(losses) - min(losses) > 1e-3 * abs(losses[0]):
        print("The losses differ: the two did not do the same work, and the ratios say nothing.")
        failed = True
    print("not as wanted" if failed else "as wanted")
    return int(failed)


if __name__ == "__main__":  # the process that is measured
    print(json.dumps(bare_loop(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
