"""A run as three pure functions of its settings: `init`, `step` and `evaluate`.

Nothing here knows of devices, files or time. `step` runs under `jit` with shardings, `shard_map`, `pmap` and
`vmap` alike (`jaxdl.sharding`), and numbers among the settings may be traced.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdl.data.base import Data
from jaxdl.data.pipeline import Pipeline
from jaxdl.errors import InputError
from jaxdl.layers.batch_axis import batch_context, batch_sum, evaluation_keys
from jaxdl.losses import penalty
from jaxdl.metrics import Last, Mean
from jaxdl.optimizers import Update, build_optimizer, ema_update
from jaxdl.parametrization import Scales, scale_initial
from jaxdl.paths import weight_mask
from jaxdl.tasks.base import Task
from jaxdl.train.precision import LossScale, cast_floats

Batch = Mapping[str, jax.Array]
Metrics = dict[str, Any]


class TrainState(flax.struct.PyTreeNode):
    """All that a run carries from step to step.

    Attributes:
      step: updates made so far, int32 [].
      skipped_batches: batches that rolling back has left out; step t trains on batch t + skipped_batches.
      nonfinite_step: the step at which the loss stopped being finite and the state froze, or -1; of P players,
        P times the step and the number of the player whose loss it was (`Program.where_nonfinite`).
      key: the run's random key data; step t uses `fold_in(key, t)`.
      params: trainable arrays, float32. With several players, the top level is the players' names.
      model_state: the model's other collections (batch statistics), float32.
      opt_state: one optimizer state a player.
      ema: exponential moving average of `params`, or None.
      loss_scale: for float16, or None.
      carry: what the task carries from step to step beside the model (`Task.initial_carry`), or None.
    """

    step: jax.Array
    skipped_batches: jax.Array
    nonfinite_step: jax.Array
    key: jax.Array
    params: Any
    model_state: Any
    opt_state: dict[str, Any]
    ema: Any
    loss_scale: LossScale | None
    carry: Any = None

    def for_evaluation(self) -> "TrainState":
        """Without what only an update needs."""
        return self.replace(opt_state={}, loss_scale=None, carry=None)


@dataclasses.dataclass(frozen=True)
class Program:
    """What is trained, on what, for what, and how; everything that the pure functions of a run need.

    Attributes:
      model: anything with Flax Linen's `init` and `apply`.
      task: losses and metrics.
      data: decoding and standardisation of batches.
      update: the update's flags (learning rate, decay, clipping, penalties, EMA).
      optimizer: the direction of the update.
      schedule: the course of the learning rate.
      total_steps: the steps over which the schedule runs.
      seed: of the parameters, the order of the examples, and everything random in the steps.
      augmentations: pure functions `(key, batch) -> batch` on decoded batches, in order.
      precision: the dtype that the model computes with.
      remat: recompute activations in the backward pass instead of keeping them.
      gradient_accumulation: microbatches a step; the gradient is their mean.
      on_nonfinite: what a loss or gradient that is not finite does; see `TrainerConfig`.
      scales: factors of initial values and learning rates by path (`jaxdl.parametrization`), or None.
    """

    model: Any
    task: Task
    data: Data
    update: Update
    optimizer: Any
    schedule: Any
    total_steps: int
    seed: int = 0
    augmentations: tuple[Callable, ...] = ()
    precision: str = "float32"
    remat: bool = False
    gradient_accumulation: int = 1
    on_nonfinite: str = "halt"
    scales: Scales | None = None

    @property
    def members(self) -> tuple["Program", ...]:
        """The runs that this program trains: one. `Trials` trains several."""
        return (self,)

    def pipeline(self, batch_size: int, rows: slice | None = None) -> Pipeline:
        """The training batches by step; `rows` of each are read by this process."""
        source, collate = self.data.splits["train"], self.data.collate
        return Pipeline(source, batch_size=batch_size, seed=self.seed, rows=rows, collate=collate)

    def split(self, tree: Any) -> list[Any]:
        """A tree of the state's or the metrics' kind as one tree a member, on the host."""
        return [jax.device_get(tree)]

    def end(self, state: TrainState, member: int) -> TrainState:
        """The state in which that member's training is over: of a single one, the state as it is."""
        return state

    @property
    def start(self) -> np.ndarray:
        """What `init` makes the first state from: the seed, uint32 []."""
        return np.uint32(self.seed)

    def init(self, seed: int | jax.Array, batch: Batch, initial: Mapping[str, Mapping] | None = None) -> TrainState:
        """The state before the first step.

        Args:
          batch: for its shapes; only its first example is used.
          initial: subtrees in place of the model's own, by collection and top-level name (`jaxdl.train.transfer`).
        """
        key = jax.random.key(seed)
        example = self._prepare({name: value[:1] for name, value in batch.items()})
        variables = dict(self.task.init(self.model, jax.random.fold_in(key, 0), example))
        if self.scales:
            variables["params"] = scale_initial(variables["params"], self.scales)
        for collection, subtrees in (initial or {}).items():
            variables[collection] = {**variables[collection], **subtrees}
        params = variables.pop("params", {})
        return TrainState(
            step=jnp.int32(0),
            skipped_batches=jnp.int32(0),
            nonfinite_step=jnp.int32(-1),
            key=jax.random.key_data(jax.random.fold_in(key, 1)),
            params=params,
            model_state=variables,
            opt_state={
                player: self._optimizer(player, params)[0].init(self._own(player, params))
                for player in self.task.players
            },
            ema=None if self.update.ema_decay is None else jax.tree.map(jnp.array, params),
            loss_scale=LossScale.create() if self.precision == "float16" else None,
            carry=self.task.initial_carry(jax.random.fold_in(key, 2)),
        )

    def step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """One step of the task: one update of every player in turn, or what the task has in place of that.

        Args:
          state: as `init` or the last step gave it.
          batch: raw arrays with a leading batch axis, as the data pipeline gives them.

        Returns:
          The next state, and metrics summed over the global batch.
        """
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        augment_key, model_key = jax.random.split(key)
        batch = self.data.standardize(self._augmented(augment_key, self.data.decode(batch)))

        new, metrics, finite = self.task.step(self, state, batch, model_key)
        if self.update.ema_decay is not None:
            average = ema_update(state.ema, new.params, self.update.ema_decay, state.step, self.update.ema_debias)
            new = new.replace(ema=average)
        return self._guard(state, new.replace(step=state.step + 1), metrics, jnp.atleast_1d(finite))

    def evaluate(self, state: TrainState, batch: Batch) -> Metrics:
        """The task's metrics of one evaluation batch, summed over its shards."""
        batch = self._prepare(batch) if self.task.views == 1 else self._prepare_views(batch)
        metrics = self.task.evaluate(self.bind(state), batch)
        return {name: metric.summed() for name, metric in metrics.items()}

    def merge(self, metrics: Metrics, others: Metrics) -> Metrics:
        """The metrics of two batches as those of both."""
        return {name: metric.merge(others[name]) for name, metric in metrics.items()}

    def predict(self, state: TrainState, batch: Batch, **kwargs) -> Any:
        """The model's float32 outputs for a raw batch, in evaluation mode; `kwargs` are those of its `apply`."""
        return self.bind(state)(*self.task.inputs(self._prepare(batch)), **kwargs)

    def learning_rate(self, state: TrainState) -> jax.Array:
        """The learning rate of the first player's next update, float32 []."""
        player = self.task.players[0]
        return self._optimizer(player, state.params)[1](state.step, state.opt_state[player])

    def where_nonfinite(self, nonfinite_step: int) -> tuple[int, str]:
        """The step at which a state froze, and what was not finite there, in words: "the loss" of a single player."""
        players = self.task.players
        step, player = divmod(nonfinite_step, len(players))
        return step, "the loss" if len(players) == 1 else f"the loss of the {players[player]}"

    # The parts of a step, of which a task may make its own.

    def _prepare(self, batch: Batch) -> Batch:
        return self.data.standardize(self.data.decode(batch))

    def _augmented(self, key: jax.Array, batch: Batch) -> Batch:
        """A decoded batch as the task trains on it: augmented, in as many views as it asks for."""

        def once(key):
            augmented = batch
            for index, augment in enumerate(self.augmentations):
                augmented = augment(jax.random.fold_in(key, index), augmented)
            return augmented

        if self.task.views == 1:
            return once(key)
        if not self.augmentations:
            raise InputError(
                f"this task compares {self.task.views} views of each example, which are equal without augmentation: "
                "give --augment, such as --augment=resized_crop,flip."
            )
        keys = jax.random.split(key, self.task.views)
        return batch | {"inputs": jax.vmap(lambda key: once(key)["inputs"], out_axes=1)(keys)}

    def _prepare_views(self, batch: Batch) -> Batch:
        """An evaluation batch in views, each drawn by its example's place in the split alone."""

        def of_example(key, example):
            with batch_context(axis_name=None):
                views = self._augmented(key, jax.tree.map(lambda x: x[None], example))
            return views["inputs"][0]

        batch = self.data.decode(batch)
        return self.data.standardize(
            batch | {"inputs": jax.vmap(of_example)(evaluation_keys(batch["index"]), dict(batch))}
        )

    def _own(self, player: str, params):
        return params if len(self.task.players) == 1 else {player: params[player]}

    def _with_own(self, player: str, params, own):
        return own if len(self.task.players) == 1 else {**params, **own}

    def _optimizer(self, player: str, params):
        own = self._own(player, params)
        parts = self.update, self.optimizer, self.schedule
        return build_optimizer(*parts, own, self.total_steps, self.scales, everything=params)

    @property
    def _dtype(self):
        return jnp.dtype(self.precision)

    def variables(self, state: TrainState) -> dict[str, Any]:
        """What the model is applied with in evaluation: averaged parameters where they are kept, in its precision."""
        params = state.params if state.ema is None else state.ema
        return {"params": cast_floats(params, self._dtype), **state.model_state}

    def bind(self, state: TrainState) -> Callable:
        """The model in evaluation mode: `forward(*inputs, **kwargs) -> outputs`, float32."""
        variables = self.variables(state)

        def forward(*inputs, **kwargs):
            inputs = cast_floats(inputs, self._dtype)
            return cast_floats(self.model.apply(variables, *inputs, train=False, **kwargs), jnp.float32)

        return forward

    def _objective(self, player: str, params, model_state, batch: Batch, key: jax.Array):
        """`(own parameters) -> (loss share, (metrics, model state))` of one player on one microbatch."""

        task_key, model_key = jax.random.split(key)

        def objective(own):
            variables = {"params": cast_floats(self._with_own(player, params, own), self._dtype)}
            mutable, calls = dict(model_state), []

            def forward(*inputs, **kwargs):
                kwargs = {"mutable": list(mutable), **kwargs}
                rng = jax.random.fold_in(model_key, len(calls))
                calls.append(None)

                def apply(variables, inputs):
                    return self.model.apply(variables, *inputs, train=True, rngs={"dropout": rng}, **kwargs)

                apply = jax.checkpoint(apply) if self.remat else apply
                outputs = apply({**variables, **mutable}, cast_floats(inputs, self._dtype))
                if kwargs["mutable"] is not False:
                    outputs, changed = outputs
                    mutable.update(cast_floats(changed, jnp.float32))
                return cast_floats(outputs, jnp.float32)

            loss, metrics = self.task.loss(forward, batch, task_key, player)
            return loss, (metrics, mutable)

        return objective

    def _gradients(self, player: str, state: TrainState, batch: Batch, key: jax.Array):
        """Loss share, metrics, model state and gradient of this shard, the mean over microbatches."""
        scale = 1.0 if state.loss_scale is None else state.loss_scale.scale
        own, count = self._own(player, state.params), self.gradient_accumulation

        def microbatch(model_state, rows: Batch, index):
            with batch_context(index=index, count=count):
                objective = self._objective(player, state.params, model_state, rows, jax.random.fold_in(key, 0))
                scaled = lambda own: (lambda loss, aux: (loss * scale, (loss, *aux)))(*objective(own))
                gradient, (loss, metrics, model_state) = jax.grad(scaled, has_aux=True)(own)
            return model_state, (loss, metrics, gradient)

        if count == 1:
            model_state, (loss, metrics, gradient) = microbatch(state.model_state, batch, 0)
        else:
            # Row r goes to microbatch r % count, so that each microbatch is spread over all devices as the batch is.
            rows = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, count, *x.shape[1:]), 1, 0), dict(batch))
            shapes = jax.eval_shape(microbatch, state.model_state, jax.tree.map(lambda x: x[0], rows), 0)[1]
            zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

            def accumulate(carry, item):
                model_state, total = carry
                model_state, (loss, metrics, gradient) = microbatch(model_state, *item)
                merged = {name: total[1][name].merge(metric) for name, metric in metrics.items()}
                added = jax.tree.map(jnp.add, (total[0], total[2]), (loss, gradient))
                return (model_state, (added[0], merged, added[1])), None

            carry = (state.model_state, zeros)
            (model_state, (loss, metrics, gradient)), _ = jax.lax.scan(accumulate, carry, (rows, jnp.arange(count)))
            loss, gradient = loss / count, jax.tree.map(lambda g: g / count, gradient)
        return loss, metrics, model_state, jax.tree.map(lambda g: g / scale, gradient)

    def update_player(self, player: str, state: TrainState, batch: Batch, key: jax.Array):
        """One update of a player by its gradient on a batch: penalties, clipping, optimizer and loss scale included.

        Args:
          batch: what `Task.loss` takes, this shard's rows of it.

        Returns:
          The state after it (its `step` and average stay), the metrics of the global batch, and whether loss and
          gradient were finite.
        """
        loss, metrics, model_state, gradient = self._gradients(player, state, batch, key)
        loss, gradient = batch_sum((loss, gradient))
        metrics = {name: metric.summed() for name, metric in metrics.items()}
        own = self._own(player, state.params)
        l1, l2 = self.update.l1_penalty, self.update.l2_penalty
        if not all(isinstance(factor, (int, float)) and factor == 0 for factor in (l1, l2)):
            mask = weight_mask(own, self.update.weight_decay_mask)
            cost, slope = jax.value_and_grad(lambda p: penalty(p, l1, l2, mask))(own)
            loss, gradient = loss + cost, jax.tree.map(jnp.add, gradient, slope)
        norm = optax.tree.norm(gradient)
        optimizer, learning_rate = self._optimizer(player, state.params)
        updates, opt_state = optimizer.update(gradient, state.opt_state[player], own, value=loss, step=state.step)
        new = state.replace(
            params=self._with_own(player, state.params, jax.tree.map(jnp.add, own, updates)),
            model_state=model_state,
            opt_state={**state.opt_state, player: opt_state},
        )
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        prefix = "" if len(self.task.players) == 1 else f"{player}/"
        metrics[f"{prefix}gradient_norm"] = Mean.of_sums(norm, 1.0)
        metrics[f"{prefix}learning_rate"] = Last.of(learning_rate(state.step, opt_state))
        if state.loss_scale is not None:
            # An overflow that a smaller scale can cure is no divergence: leave the update out and scale down.
            overflow = jnp.isfinite(loss) & ~finite & (state.loss_scale.scale > 1)
            kept = jax.tree.map(lambda a, b: jnp.where(overflow, a, b), state, new)
            new = kept.replace(loss_scale=state.loss_scale.adjust(finite))
            finite |= overflow
        return new, metrics, finite

    def _guard(self, old: TrainState, new: TrainState, metrics: Metrics, finite: jax.Array):
        """What a loss or gradient that is not finite does to the state, and to the metrics of its step.

        Args:
          finite: bool [1], or [players].
        """
        if self.on_nonfinite == "ignore":
            return new, metrics
        frozen = old.nonfinite_step >= 0
        keep = finite.all() & ~frozen
        metrics = jax.tree.map(lambda m: jnp.where(keep, m, jnp.zeros_like(m)), metrics)
        if self.on_nonfinite == "skip":
            kept = old.replace(step=new.step, loss_scale=new.loss_scale)
        else:  # halt and rollback: freeze here, so that the loop, which looks later, finds the state of this very step
            place = old.step * len(self.task.players) + jnp.argmin(finite)  # the first that is not
            kept = old.replace(nonfinite_step=jnp.where(frozen, old.nonfinite_step, place))
        return jax.tree.map(lambda a, b: jnp.where(keep, a, b), new, kept), metrics
