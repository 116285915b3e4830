"""Evaluates a run directory: python -m launch.evaluate --workdir=RUN [--split=test] [--checkpoint=best]

Other flags change the run's own where they have to: --data_dir, --eval_batch_size, --mesh, --parallelism.
"""

import json
from collections.abc import Sequence

from absl import flags

from jaxdl import config
from jaxdl.errors import InputError
from launch import cli

FIELDS = {
    "workdir": config.Field("workdir", "", "The run directory."),
    "split": config.Field("split", "test", "Which split: train, validation or test."),
    "checkpoint": config.Field("checkpoint", "best", "Which checkpoint: best, latest, or a step."),
}


def main(argv: Sequence[str]) -> int:
    """Prints the checkpoint's metrics as one line of JSON."""
    if {"--help", "-h", "--helpfull"} & set(argv):
        print(__doc__)
        for field in FIELDS.values():
            print(f"  --{field.name}={field.default}\n      {field.help}")
        return 0
    flag_values = flags.FlagValues()
    config.define(flag_values, FIELDS, "", "evaluate")
    overrides = config.parse(flag_values, argv, known_only=True)
    if not flag_values["workdir"].value:
        raise InputError("--workdir is not given: name the run directory to evaluate.")
    from jaxdl import experiment

    step, metrics = experiment.evaluate(
        flag_values["workdir"].value, flag_values["split"].value, flag_values["checkpoint"].value, overrides
    )
    scalars = {name: value for name, value in metrics.items() if isinstance(value, (int, float))}
    print(json.dumps({"step": step, "split": flag_values["split"].value, **scalars}))
    return 0


if __name__ == "__main__":
    cli.main(main)
