"""What a task is: pure functions from which the trainer derives its step, its evaluation and its figures."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
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

    fills: ClassVar[tuple[str, ...]] = ("num_outputs", "vocab_size")
    """The fields of the model that `model_fields` may give, whose flags may therefore be left out."""

    views: ClassVar[int] = 1
    """How many augmented versions of an example the task sees. With several, `inputs` of `loss` and `evaluate` are
    [B, views, ...]; those of evaluations are drawn by the example's place in its split."""

    sampler: ClassVar[type | None] = None
    """What shows what a model of this task generates, or None: a frozen dataclass of flags, all with defaults, with
    `sample(self, model, variables, data, key) -> dict[str, str | Figure]`, texts and Matplotlib figures by name."""

    def for_data(self, data) -> "Task":
        """This task, with what it has to know of the data (ids of special tokens, counts of words) in its fields."""
        return self

    def period(self, player: str) -> int:
        """In how many steps `player` is updated once: in the last of them. Each step has a batch of its own."""
        return 1

    def alarm(self, metrics: Mapping[str, float]) -> str | None:
        """What is wrong with a training whose metrics since the line before are these, in words, or None.

        A loss that is not finite is told without this. The loop tells a new alarm, and status.json has it as `alarm`.
        """
        return None

    def model_fields(self, data) -> dict[str, Any]:
        """The fields of the model that follow from the data, where their flags are not given."""
        raise NotImplementedError

    def wrap(self, model):
        """What is trained, made of the model that flags chose: the model itself, or one that contains it.

        Raises:
          InputError: the task cannot train this model.
        """
        return model

    def check(self, data) -> None:
        """Raises InputError when the data cannot serve this task."""

    def inputs(self, batch: Batch) -> tuple:
        """The model's positional inputs: `inputs`, and the `lengths` of sequences where the data has them."""
        return tuple(batch[name] for name in ("inputs", "lengths") if name in batch)

    def init(self, model, key: jax.Array, batch: Batch):
        """The model's variables, all collections."""
        return model.init({"params": key}, *self.inputs(batch), train=False)

    def initial_carry(self, key: jax.Array) -> Any:
        """What the task carries from step to step beside the model, arrays in a tree; None for nothing."""
        return None

    def step(self, program, state, batch: Batch, key: jax.Array):
        """One step of training: by default one update of every player in turn, each on the whole batch.

        A task that is no loss of a batch gives its own, pure as this one, of what `program` offers: `update_player`,
        so that optimizer, schedule, clipping, precision, microbatches and shards are those of any other, and `bind`.

        Args:
          program: the `Program` of the run.
          state: its `TrainState`. `params`, `opt_state` and `carry` may change; `step` and `ema` are the program's.
          batch: arrays [B, ...], decoded, augmented and standardised; B is a shard's under `shard_map`.
          key: of this step.

        Returns:
          The next state, the metrics of the step, summed over the global batch, and whether loss and gradient were
          finite, bool [], or of each player, bool [players].
        """
        metrics, finite = {}, []
        for index, player in enumerate(self.players):
            player_key, period = jax.random.fold_in(key, index), self.period(player)
            update = lambda state: program.update_player(player, state, batch, player_key)
            if period == 1:
                state, of_player, is_finite = update(state)
            else:
                zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(update, state)[1])
                idle = lambda state: (state, zeros, jnp.bool_(True))
                state, of_player, is_finite = jax.lax.cond(state.step % period == period - 1, update, idle, state)
            metrics |= of_player
            finite.append(is_finite)
        return state, metrics, jnp.stack(finite)

    def loss(
        self, forward: Forward, batch: Batch, key: jax.Array, player: str = "model"
    ) -> tuple[jax.Array, dict[str, Metric]]:
        """What `player` minimises on a batch, and the metrics of training.

        Args:
          forward: `forward(*inputs, **kwargs) -> outputs`, float32: the model in training mode; `kwargs` are those of
            the module's `apply`. With `mutable=False` its state (batch statistics) stays as it is, as it has to where
            the model is differentiated by its inputs.
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

    def sample(self, sampler, model, variables, data, key: jax.Array) -> dict[str, Any]:
        """What `sampler`, one of the class `self.sampler`, shows of a trained model: texts and figures by name.

        A task whose samples depend on its own fields, such as a noise schedule, puts its own in place of this.
        """
        return sampler.sample(model, variables, data, key)

    def images(self, sampler, model, variables, data, key: jax.Array, count: int) -> tuple[Any, Any]:
        """Images to be judged (`jaxdl.analysis.judging`): `count` of them by `sampler`, and the classes asked for.

        Returns:
          images float32 [count, H, W, channels] in 0 .. 1 on the host, and labels int32 [count], or None.

        Raises:
          InputError: this task generates no images.
        """
        raise InputError("this run's task generates no images: there is nothing to judge.")

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


def check_tokens(data, tokenizer, tokens: str = "inputs", lengths: str = "lengths") -> None:
    """Checks the sequences of splits that are arrays in memory, where they have any; a disk is not read through for it.

    Args:
      data: whose splits they are.
      tokenizer: whose ids `tokens`, int [n, T], are; None where they are numbers.
      tokens: name of the array of sequences.
      lengths: name of the array of their lengths, int [n].

    Raises:
      InputError: a token outside the vocabulary, or a length of 0 or beyond T.
    """
    for split, source in data.splits.items():
        arrays = getattr(source, "arrays", {})
        bounds = {}
        if tokens in arrays and tokenizer is not None:
            bounds[tokens] = (0, tokenizer.vocab_size - 1)
        if tokens in arrays and lengths in arrays:
            bounds[lengths] = (1, arrays[tokens].shape[1])
        for name, (low, high) in bounds.items():
            wrong = np.argwhere((arrays[name] < low) | (arrays[name] > high))
            if len(wrong):
                value = arrays[name][tuple(wrong[0])]
                raise InputError(
                    f"split '{split}': {name} of row {wrong[0][0]} has {value}, and must be from {low} to {high}."
                )
