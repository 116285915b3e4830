"""What a task is: pure functions from which the trainer derives its step, its evaluation and its figures."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import jax

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

    fills: ClassVar[tuple[str, ...]] = ("num_outputs", "vocab_size")
    """The fields of the model that `model_fields` may give, whose flags may therefore be left out."""

    sampler: ClassVar[type | None] = None
    """What shows what a model of this task generates, or None: a frozen dataclass of flags, all with defaults, with
    `sample(self, model, variables, data, key) -> dict[str, str | Figure]`, texts and Matplotlib figures by name."""

    def for_data(self, data) -> "Task":
        """This task, with what it has to know of the data (ids of special tokens, counts of words) in its fields."""
        return self

    def model_fields(self, data) -> dict[str, Any]:
        """The fields of the model that follow from the data, where their flags are not given."""
        raise NotImplementedError

    def check(self, data) -> None:
        """Raises InputError when the data cannot serve this task."""

    def inputs(self, batch: Batch) -> tuple:
        """The model's positional inputs: `inputs`, and the `lengths` of sequences where the data has them."""
        return tuple(batch[name] for name in ("inputs", "lengths") if name in batch)

    def init(self, model, key: jax.Array, batch: Batch):
        """The model's variables, all collections."""
        return model.init({"params": key}, *self.inputs(batch), train=False)

    def loss(
        self, forward: Forward, batch: Batch, key: jax.Array, player: str = "model"
    ) -> tuple[jax.Array, dict[str, Metric]]:
        """What `player` minimises on a batch, and the metrics of training.

        Args:
          forward: `forward(*inputs, **kwargs) -> outputs`, float32: the model in training mode; `kwargs` are those of
            the module's `apply`.
          batch: arrays [B, ...], standardised; B is a shard's under `shard_map`.
          key: for what the loss itself draws (masks, negatives, noise); `example_keys(key, B)` draws the same on any
            number of devices.
          player: one of `players`.

        Returns:
          this shard's share of the mean over the global batch (`losses.share_of_mean`), and metrics of this shard.
        """
        raise NotImplementedError

    def evaluate(self, forward: Forward, batch: Batch) -> dict[str, Metric]:
        """The metrics of a batch, without the rows whose `batch["weight"]` is 0; `forward` is in evaluation mode.

        `batch["index"]`, int32 [B], is each example's place in its split: what is drawn with a fixed key folded with it
        is the same in every evaluation, whatever the batch size.
        """
        raise NotImplementedError

    def figures(self, predict: Callable[..., Any], batches: Iterable[Batch], data) -> dict[str, Any]:
        """Matplotlib figures by name, drawn on the host when training ends.

        Args:
          predict: `predict(batch, **kwargs)`: the model's outputs as NumPy arrays; it decodes and standardises by
            itself, and `kwargs` (which output is wanted, say) are those of the module's `apply`.
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
