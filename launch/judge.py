"""Has a trained classifier judge what a run generates: python -m launch.judge --workdir=RUN --classifier=RUN2

How clear the images are (mean probability of their class), how varied (which classes there are), how like held-out
images of the run's data (the Fréchet distance of the classifier's last features, beside that of as many training
images) and how many are of the class that was asked for. Printed, and written to RUN/samples/judgement.json with a
sheet of the images. How the images are drawn are the flags of the run's task; --workdir=RUN --help shows them.
"""

import dataclasses
import json
from collections.abc import Sequence

import numpy as np

from jaxdl import config
from jaxdl.errors import InputError
from jaxdl.types import Bounds
from launch import cli, sample

FIELDS = {
    "workdir": config.Field("workdir", "", "The run directory that generates."),
    "classifier": config.Field("classifier", "", "The run directory of a classifier of the same data."),
    "samples": config.Field("samples", 10_000, "How many images are judged.", kind=int, bounds=Bounds(2)),
    "split": config.Field("split", "test", "The split of the run's data that the images are held against."),
    "checkpoint": config.Field("checkpoint", "best", "Which checkpoint of the run: best, latest, or a step."),
    "seed": config.Field("seed", 0, "Of what is drawn.", kind=int, bounds=Bounds(0, 2**32 - 1)),
}

SHEET = 100  # images on it


def main(argv: Sequence[str]) -> int:
    """Prints the judgement as one line of JSON, and writes it."""
    needed = {"workdir": "of the generator", "classifier": "of the classifier that judges"}
    return sample.run_on_sampler(FIELDS, argv, __doc__, needed, _judge)


def _judge(own: dict, sampler, overrides: Sequence[str]) -> None:
    import jax

    from jaxdl import experiment, plots
    from jaxdl.analysis import judging
    from jaxdl.train.record import RunDirectory

    program, step, state = sample.restore(own, sampler, overrides)
    if own["split"] not in program.data.splits:
        raise InputError(f"--split={own['split']}: this dataset has {', '.join(program.data.splits)}.")
    settings, judging_program, _, _, judging_state = experiment.restore(own["classifier"], "best", overrides)
    if settings.names["task"] != "classification":
        raise InputError(f"--classifier={own['classifier']} is a run of {settings.names['task']}, no classifier.")
    classifier = judging.Classifier(
        judging_program.model, jax.device_get(judging_program.variables(judging_state)), judging_program.data
    )
    variables, key = jax.device_get(program.variables(state)), jax.random.key(own["seed"])
    images, labels = program.task.images(sampler, program.model, variables, program.data, key, own["samples"])
    reference = judging.real_images(program.data, own["split"])
    real = judging.real_images(program.data, "train", own["samples"])
    judgement = judging.judge(classifier, images, labels, reference)
    told = dataclasses.asdict(judgement) | {
        "fid_of_training_images": judging.judge(classifier, real, None, reference).fid,
        "split": own["split"],
        "step": step,
        "seed": own["seed"],
        "sampler": dataclasses.asdict(sampler),
        "classifier": own["classifier"],
    }
    record = RunDirectory(own["workdir"], tensorboard=False)
    (record.path / "samples").mkdir(exist_ok=True)
    record.file("samples/judgement.json", json.dumps(told, indent=1) + "\n")
    rows = np.linspace(0, len(images) - 1, min(SHEET, len(images))).astype(int)
    record.sample("judged", plots.image_sheet(images[rows], columns=10), step)
    print(json.dumps(told))


if __name__ == "__main__":
    cli.main(main)
