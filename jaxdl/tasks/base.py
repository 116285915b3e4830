"""What a task is: pure functions from which the trainer derives its step, its evaluation and its figures."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import jax
import numpy as np

from jaxdl.data import checks
from jaxdl.errors import InputError
from jaxdl.metrics import Metric

Batch = Mapping[str, jax.Array]
Forward = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Task:
    """Base of all tasks. A task is a frozen dataclass whose fields are flags, and holds no arrays."""

    players: ClassVar[tuple[str, ...]] = ("model",)
    """Who is optimised in turn. With several, the names are the top-level keys of the parameters."""

    selection: ClassVar[tuple[str, str]] = ("loss", "min")
    """The evaluation metric by which the best checkpoint is kept, and whether its "max" or "min" is best."""

    fills: ClassVar[tuple[str, ...]] = ("num_outputs",)
    """The fields of the model that `model_fields` gives, whose flags may therefore be left out."""

    def model_fields(self, data) -> dict[str, Any]:
        """The fields of the model that follow from the data, where their flags are not given."""
        raise NotImplementedError

    def check(self, data) -> None:
        """Raises InputError when the data cannot serve this task."""

    def inputs(self, batch: Batch) -> tuple:
        """The model's positional inputs."""
        return (batch["inputs"],)

    def init(self, model, key: jax.Array, batch: Batch):
        """The model's variables, all collections."""
        return model.init({"params": key}, *self.inputs(batch), train=False)

    def loss(self, forward: Forward, batch: Batch, player: str = "model") -> tuple[jax.Array, dict[str, Metric]]:
        """What `player` minimises on a batch, and the metrics of training.

        Args:
          forward: `forward(*inputs) -> outputs`, float32: the model in training mode.
          batch: arrays [B, ...], standardised; B is a shard's under `shard_map`.
          player: one of `players`.

        Returns:
          this shard's share of the mean over the global batch (`losses.share_of_mean`), and metrics of this shard.
        """
        raise NotImplementedError

    def evaluate(self, forward: Forward, batch: Batch) -> dict[str, Metric]:
        """The metrics of a batch, without the rows whose `batch["weight"]` is 0; `forward` is in evaluation mode."""
        raise NotImplementedError

    def figures(self, predict: Callable[[Batch], np.ndarray], batches: Iterable[Batch], data) -> dict[str, Any]:
        """Matplotlib figures by name, drawn on the host when training ends.

        Args:
          predict: `predict(batch)`: the model's outputs as a NumPy array; it decodes and standardises by itself.
          batches: evaluation batches as the source gives them: not standardised, padded rows of `weight` 0.
          data: what the dataset gave.
        """
        return {}


def check_in_memory(data, name: str) -> None:
    """Checks the labels or targets of splits that are arrays in memory; a disk is not read through for this.

    Raises:
      InputError: there are none, or they hold NaN or a label out of range.
    """
    for split, source in data.splits.items():
        arrays = getattr(source, "arrays", None)
        if arrays is None:
            continue
        if name not in arrays:
            raise InputError(f"split '{split}' has no {name}; it has {', '.join(arrays)}.")
        found = checks.fault({name: arrays[name]}, data.num_classes)
        if found:
            raise InputError(f"split '{split}': {found}")
