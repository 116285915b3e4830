"""Sweep directories with run directories made up in a moment, as trials leave them."""

import itertools
import json
import math
import pathlib
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from launch.sweeps.directory import SweepDirectory
from launch.sweeps.plan import Trial

METRIC = ("accuracy", "max")


def product(**axes: Iterable) -> list[dict[str, str]]:
    """The values of a grid's trials; `__` in a name stands for a dot."""
    flags = [name.replace("__", ".") for name in axes]
    return [dict(zip(flags, map(str, values))) for values in itertools.product(*axes.values())]


def make_sweep(
    path: pathlib.Path,
    axes: list[str],
    trials: list[Mapping[str, str]],
    final: Callable[[Mapping[str, str]], float | None],
    *,
    search: str = "grid",
    metric: str = "accuracy",
    states: Mapping[int, str] | None = None,
    evaluations: int = 10,
    **plan,
) -> SweepDirectory:
    """A sweep of made-up trials.

    Args:
      axes: their texts.
      trials: the values of each trial.
      final: the metric to which a trial of these values tends; None is NaN from the beginning.
      states: by the trial's index, where it is not done.
    """
    sweep = SweepDirectory(path)
    sweep.open()
    base = ["--model=mlp", "--dataset=digits", "--steps=1000"]
    told = {"search": search, "trials": len(trials), "metric": f"{metric}:{'max' if metric == 'accuracy' else 'min'}"}
    sweep.write_plan({"base": base, "axes": axes, **told, **plan})
    names = ["__".join(f"{flag}={text}" for flag, text in values.items()) for values in trials]
    sweep.add_trials(Trial(name, values) for name, values in zip(names, trials))
    for index, (name, values) in enumerate(zip(names, trials)):
        state = (states or {}).get(index, "done")
        if state != "waiting":
            _write_run(sweep.run(name), values, final(values), metric, state, evaluations)
            error = "out of memory" if state == "failed" else None
            attempt = {"trial": name, "executor": "local", "status": 0, "state": state, "error": error}
            sweep.add_attempt({**attempt, "step": 1000, "seconds": 2.0})
    sweep.close()
    return sweep


def _write_run(run: pathlib.Path, values, final, metric: str, state: str, evaluations: int) -> None:
    run.mkdir(parents=True)
    flags = {"model": "mlp", "dataset": "digits", "seed": "0", "plots": "false", "progress": "off", **values}
    (run / "flags.txt").write_text("# its flags\n" + "".join(f"--{flag}={text}\n" for flag, text in flags.items()))
    last = evaluations if state in ("done",) else max(1, evaluations // 2)
    steps = [1000 * (index + 1) // evaluations for index in range(last)]
    error = f"the loss is nan at step {steps[-1]}" if state == "diverged" else None
    (run / "status.json").write_text(json.dumps({"state": state, "step": steps[-1], "steps": 1000, "error": error}))
    with open(run / "metrics.jsonl", "w") as file:
        for step in steps:
            reached = None if final is None else final + (0.1 if metric == "accuracy" else 2) * _far(step, metric)
            loss = None if final is None else 2 * math.exp(-step / 300) + 0.1
            for split, offset in (("train", 0.01), ("validation", 0.0), ("test", -0.01)):
                value = None if reached is None else reached + offset
                file.write(json.dumps({"step": step, "split": split, metric: value, "loss": loss}) + "\n")


def _far(step: int, metric: str) -> float:
    """How far from its end a run is: accuracy comes from below, a loss from above."""
    return (-8 if metric == "accuracy" else 1) * math.exp(-step / 150)


def seed_noise(values: Mapping[str, str], scale: float = 0.008) -> float:
    """The same for the same values."""
    rng = np.random.default_rng(list(json.dumps(values, sort_keys=True).encode()))
    return float(scale * rng.standard_normal())
