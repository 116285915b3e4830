"""Several labels of yes or no for each example, of which some may be missing.

Shapes: B examples, T labels. Targets float [B, T] are 0 or 1; `target_weight` float [B, T], where there is one, is 0
for a label that was not measured.
"""

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from jaxdl import losses, metrics
from jaxdl.errors import InputError
from jaxdl.tasks.base import Task


@dataclasses.dataclass(frozen=True)
class MultiLabel(Task):
    """Log odds of several labels, by cross-entropy: the mean over all labels that were measured.

    Attributes:
      num_examples: int, of the largest split; from the data, no flag.
    """

    num_examples: Any = dataclasses.field(default=None, compare=False, repr=False)

    selection: ClassVar[tuple[str, str]] = ("roc_auc", "max")

    def for_data(self, data) -> "MultiLabel":
        return dataclasses.replace(super().for_data(data), num_examples=max(map(len, data.splits.values())))

    def model_fields(self, data) -> dict:
        return {"num_outputs": data.num_targets}

    def check(self, data) -> None:
        if not data.num_targets:
            raise InputError("this task needs targets of 0 and 1, and the dataset has none; try a classification.")
        for split, source in data.splits.items():
            arrays = getattr(source, "by_graph", None) or getattr(source, "arrays", {})
            if "targets" in arrays and not np.isin(arrays["targets"], (0, 1)).all():
                raise InputError(f"split '{split}': targets must be 0 or 1; of numbers, take a regression.")

    def loss(self, forward, batch, key, player="model"):
        logits, weight = forward(*self.inputs(batch)), self._weight(batch)
        values = losses.sigmoid_cross_entropy(logits, batch["targets"])
        return losses.share_of_mean(values, weight), {"loss": metrics.Mean.of(values, weight)}

    def evaluate(self, forward, batch):
        logits, targets, weight = forward(*self.inputs(batch)), batch["targets"], self._weight(batch)
        values = losses.sigmoid_cross_entropy(logits, targets)
        ranked = (logits, targets, weight, batch["index"], self.num_examples)
        return {
            "loss": metrics.Mean.of(values, weight),
            "accuracy": metrics.Mean.of((logits > 0) == (targets > 0.5), weight),
            "roc_auc": metrics.RocAuc.of(*ranked),
            "average_precision": metrics.AveragePrecision.of(*ranked),
        }

    def figures(self, predict, batches, data):
        from jaxdl import plots

        scores, targets, weight = [], [], []
        for batch in batches:
            scores.append(np.asarray(predict(batch)))
            targets.append(np.asarray(batch["targets"]))
            weight.append(np.asarray(self._weight(batch)))
        if not scores:
            return {}
        names = data.class_names or tuple(map(str, range(data.num_targets)))
        return {"roc": plots.roc_curves(*map(np.concatenate, (scores, targets, weight)), names)}

    def _weight(self, batch):
        """1 for each label that counts: [B, T]."""
        weight = batch.get("target_weight", jnp.ones_like(batch["targets"]))
        return weight * batch["weight"][:, None] if "weight" in batch else weight
