"""Judges the features of a run's encoder, untouched: python -m launch.probe --workdir=RUN

It prints the accuracy on a split of two readers that know the training split's labels: its nearest neighbours, and
logistic regression on standardised features. Beside them stand those of the same encoder before training, as the run's
seed made it. The run may be contrastive, or a classifier, whose last layer is left out.

Exit status: 0 done; 2 the flags are wrong.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxdl.analysis import neighbors
from jaxdl.errors import InputError
from jaxdl.types import PositiveFloat, PositiveInt
from launch import cli


@dataclasses.dataclass(frozen=True)
class Probe:
    """Flags of this command.

    Attributes:
      workdir: the run directory.
      checkpoint: which checkpoint: best, latest, or a step.
      split: the split that is classified; the training split is what is known.
      data_dir: where the data is, where it is not where the run had it.
      neighbors: how many neighbours vote.
      temperature: a neighbour's vote is exp(cosine / temperature).
      penalty: of the logistic regression, times half the sum of squared weights, beside the loss summed over examples.
      random: whether the encoder before training is judged, too.
    """

    workdir: str = ""
    checkpoint: str = "best"
    split: str = "test"
    data_dir: str = ""
    neighbors: PositiveInt = 200
    temperature: PositiveFloat = 0.07
    penalty: PositiveFloat = 1.0
    random: bool = True

    def run(self) -> None:
        """Prints the table. Raises InputError: no run directory, no labels, or a model without features."""
        if not self.workdir:
            raise InputError("--workdir is not given: name the run directory whose encoder is to be judged.")
        import jax

        from jaxdl import experiment

        overrides = [f"--data_dir={self.data_dir}"] if self.data_dir else []
        settings, program, placement, step, state = experiment.restore(self.workdir, self.checkpoint, overrides)
        data = program.data
        if data.num_classes is None or "labels" not in data.splits["train"][0]:
            raise InputError(f"the dataset of {self.workdir} has no labels, by which features could be judged.")
        if self.split not in data.splits or self.split == "train":
            held_out = ", ".join(name for name in data.splits if name != "train")
            raise InputError(f"--split={self.split}: held-out splits of this dataset are {held_out}.")
        program, method = _encoder(program)
        batch_size = settings.trainer.eval_batch_size or settings.trainer.batch_size
        states = {f"trained, step {step}": state}
        if self.random:
            example = program.pipeline(settings.trainer.batch_size).example()
            states["before training"] = jax.jit(program.init)(settings.trainer.seed, example)
        print(f"{'encoder':<24}  {'features':>8}  {'neighbors':>9}  {'linear':>7}   accuracy on {self.split}, per cent")
        for name, of_state in states.items():
            found = [self._features(program, placement, of_state, batch_size, method, s) for s in ("train", self.split)]
            (known, labels), (asked, answers) = found
            voted = neighbors.nearest_neighbor_classes(known, labels, asked, self.neighbors, self.temperature)
            fitted = neighbors.linear_classes(known, labels, asked, self.penalty)
            scores = [100 * float((classes == answers).mean()) for classes in (voted, fitted)]
            print(f"{name:<24}  {known.shape[1]:>8}  {scores[0]:>9.2f}  {scores[1]:>7.2f}", flush=True)

    def _features(self, program, placement, state, batch_size, method, split) -> tuple[np.ndarray, np.ndarray]:
        """Features [N, F] and labels [N] of a split."""
        from jaxdl.train.evaluation import Evaluator

        evaluator = Evaluator(program, placement, batch_size)
        predict, features, labels = evaluator.predictor(state), [], []
        for batch in evaluator.host_batches(split):
            real = batch["weight"] > 0
            features.append(np.asarray(predict(batch, **method))[real])
            labels.append(batch["labels"][real])
        return np.concatenate(features), np.concatenate(labels)


def _encoder(program):
    """The program whose model's outputs are features, and the keywords of `apply` that make them so.

    Raises:
      InputError: a model that has neither a method `features` nor a last layer that can be left out.
    """
    model = program.model
    if hasattr(model, "features"):
        return program, {"method": "features"}
    if not hasattr(model, "num_outputs"):
        raise InputError(f"model {type(model).__name__} has no features: no method of that name, and no num_outputs.")
    return dataclasses.replace(program, model=model.clone(num_outputs=0)), {}


def main(argv: Sequence[str]) -> int:
    """Runs the command; gives back its exit status."""
    return cli.run_flags(Probe, argv, __doc__)


if __name__ == "__main__":
    cli.main(main)
