"""Regression of one or more targets.

Shapes: B examples, T targets. A pipeline that standardises the targets leaves their scale in each batch
(`target_std` [B, T]), and evaluation metrics are then in the targets' own units; the loss is in the units of
the batch. Without it both are in the targets' own units.
"""

import dataclasses
from typing import ClassVar, Literal

import numpy as np

from jaxdl import losses, metrics
from jaxdl.errors import InputError
from jaxdl.tasks.base import Task, check_in_memory, check_tokens
from jaxdl.types import PositiveFloat


@dataclasses.dataclass(frozen=True)
class Regression(Task):
    """Real targets for each example: targets float [B, T].

    Attributes:
      loss_function: what is minimised: mean squared error, mean absolute error, or Huber's loss.
      huber_delta: absolute error, in units of the batch's targets, above which Huber's loss is linear.
    """

    loss_function: Literal["mse", "mae", "huber"] = "mse"
    huber_delta: PositiveFloat = 1.0

    selection: ClassVar[tuple[str, str]] = ("mse", "min")

    def model_fields(self, data) -> dict:
        return {"num_outputs": data.num_targets}

    def check(self, data) -> None:
        if not data.num_targets:
            raise InputError("regression needs targets, and the dataset has none; try --task=classification.")
        check_in_memory(data, "targets")
        check_tokens(data, data.tokenizer)

    def loss(self, forward, batch, key, player="model"):
        values, weight = self._losses(forward(*self.inputs(batch)), batch["targets"]), batch.get("weight")
        return losses.share_of_mean(values, weight), {"loss": metrics.Mean.of(values, weight)}

    def evaluate(self, forward, batch):
        predictions, targets, weight = forward(*self.inputs(batch)), batch["targets"], batch.get("weight")
        scale = batch.get("target_std", 1.0)
        squared = losses.squared_error(predictions * scale, targets * scale)
        return {
            "loss": metrics.Mean.of(self._losses(predictions, targets), weight),
            "mse": metrics.Mean.of(squared, weight),
            "rmse": metrics.RootMean.of(squared, weight),
            "mae": metrics.Mean.of(losses.absolute_error(predictions * scale, targets * scale), weight),
            "r2": metrics.RSquared.of(predictions, targets, weight),
        }

    def figures(self, predict, batches, data):
        from jaxdl import plots

        targets, predictions = [], []
        for batch in batches:
            real = np.asarray(batch.get("weight", np.ones(len(batch["targets"])))) > 0
            targets.append(np.asarray(batch["targets"])[real])
            predictions.append(np.asarray(predict(batch))[real])
        if not targets:
            return {}
        targets, predictions = np.concatenate(targets), np.concatenate(predictions)
        if data.target_std is not None:
            predictions = predictions * data.target_std + data.target_mean
        return {
            "predictions": plots.predictions(targets, predictions),
            "residuals": plots.residuals(targets, predictions),
        }

    def _losses(self, predictions, targets):
        """The loss of each example, [B]. Shapes that only broadcast would train on nonsense, so they are refused."""
        if predictions.shape != targets.shape:
            raise InputError(
                f"the model gives outputs {list(predictions.shape)} for targets {list(targets.shape)}; "
                f"--model.num_outputs={targets.shape[-1]} is needed."
            )
        if self.loss_function == "huber":
            return losses.huber(predictions, targets, self.huber_delta)
        return {"mse": losses.squared_error, "mae": losses.absolute_error}[self.loss_function](predictions, targets)
