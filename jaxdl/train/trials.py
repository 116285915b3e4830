"""Several runs as one program: the same pure functions with a leading axis, one entry a trial.

Runs of one `Settings.program_key` differ in numbers and seeds alone. `Trials` is to them what `Program` is to one run,
and the loop trains either. Shapes: K trials (padded to a multiple of the devices), B examples in a batch of each.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.data.base import Data
from jaxdl.data.pipeline import Pipeline
from jaxdl.data.sources import Batch
from jaxdl.tasks.base import Task
from jaxdl.train.program import Metrics, Program, TrainState

Number = tuple[str, str]
"""A part and its field: ("update", "learning_rate")."""


class TrialsState(flax.struct.PyTreeNode):
    """What K runs carry from step to step.

    Attributes:
      runs: a `TrainState` whose arrays have K in front.
      numbers: what the trials differ in, float32 [K] by "part.field".
      active: bool [K]; a trial that is not stays as it is.
    """

    runs: TrainState
    numbers: dict[str, jax.Array]
    active: jax.Array

    @property
    def params(self) -> Any:
        return self.runs.params

    @property
    def step(self) -> jax.Array:
        return self.runs.step

    @property
    def skipped_batches(self) -> jax.Array:
        return self.runs.skipped_batches

    @property
    def nonfinite_step(self) -> jax.Array:
        return self.runs.nonfinite_step

    def for_evaluation(self) -> "TrialsState":
        return self.replace(runs=self.runs.for_evaluation())


class Trials:
    """A `Program` with a trial axis.

    Args:
      at: the program with these numbers, which may be traced.
      numbers: of each trial, what a program can take as arguments (`Settings.numbers`).
      seeds: of each trial.
      shards: the devices over which trials are split; the last trial is repeated, inactive, to fill them up.
    """

    def __init__(
        self,
        at: Callable[[Mapping[Number, Any]], Program],
        numbers: Sequence[Mapping[Number, float]],
        seeds: Sequence[int],
        shards: int = 1,
    ):
        self.members = tuple(map(at, numbers))
        self._at, self._numbers = at, tuple(numbers)
        trials = [*range(len(seeds)), *[len(seeds) - 1] * (-len(seeds) % shards)]
        self.seed = np.uint32([seeds[trial] for trial in trials])
        self.numbers = {
            number: np.float32([numbers[trial][number] for trial in trials])
            for number in numbers[0]
            if len({values[number] for values in numbers}) > 1
        }

    def only(self, number: Number) -> "Trials":
        """The same with this number alone varying, the others as the first trial has them."""
        return Trials(
            self._at,
            [{**self._numbers[0], number: values[number]} for values in self._numbers],
            self.seed[: len(self.members)],
        )

    @property
    def data(self) -> Data:
        return self.members[0].data

    @property
    def task(self) -> Task:
        return self.members[0].task

    @property
    def total_steps(self) -> int:
        return self.members[0].total_steps

    def pipeline(self, batch_size: int, rows: slice | None = None) -> "TrialsPipeline":
        """The training batches of all trials, by step."""
        return TrialsPipeline(self.data, batch_size, self.seed)

    @property
    def start(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """What `init` makes the first states from: seeds, uint32 [K], and what the trials differ in, float32 [K]."""
        return self.seed, {".".join(number): values for number, values in self.numbers.items()}

    def init(self, start, batch: Batch, initial: Mapping[str, Mapping] | None = None) -> TrialsState:
        """The states before the first step, of `start`; `batch` and `initial` are as for one trial."""
        seeds, numbers = jax.tree.map(jnp.asarray, start)
        # One after the other: each is then what it is alone, and random numbers drawn under vmap compile for seconds.
        runs = jax.lax.map(lambda item: self._with(item[1]).init(item[0], batch, initial), (seeds, numbers))
        return TrialsState(runs=runs, numbers=numbers, active=jnp.arange(len(seeds)) < len(self.members))

    def step(self, state: TrialsState, batch: Batch) -> tuple[TrialsState, Metrics]:
        """One update of every active trial; `batch` has arrays [K, B, ...]. Metrics have K in front."""

        def one(run, numbers, active, batch):
            new, metrics = self._with(numbers).step(run, batch)
            new = jax.tree.map(lambda after, before: jnp.where(active, after, before), new, run)
            return new, jax.tree.map(lambda metric: jnp.where(active, metric, jnp.zeros_like(metric)), metrics)

        runs, metrics = jax.vmap(one)(state.runs, state.numbers, state.active, batch)
        return state.replace(runs=runs), metrics

    def evaluate(self, state: TrialsState, batch: Batch) -> Metrics:
        """Every trial's metrics of one evaluation batch, which they share: arrays [B, ...]."""
        return jax.vmap(lambda run, numbers: self._with(numbers).evaluate(run, batch))(state.runs, state.numbers)

    def merge(self, metrics: Metrics, others: Metrics) -> Metrics:
        """Each trial's metrics of two batches as those of both."""
        return jax.vmap(self.members[0].merge)(metrics, others)

    def split(self, tree: Any) -> list[Any]:
        """A tree with the trial axis as one tree a trial, on the host."""
        leaves, structure = jax.tree.flatten(jax.device_get(tree))
        return [structure.unflatten([leaf[trial] for leaf in leaves]) for trial in range(len(self.members))]

    def end(self, state: TrialsState, trial: int) -> TrialsState:
        """The state in which this trial stays as it is from now on; nothing is compiled anew."""
        active = np.array(state.active)
        active[trial] = False
        return state.replace(active=jax.device_put(active, state.active.sharding))

    def _with(self, numbers: Mapping[str, jax.Array]) -> Program:
        return self._at({**self._numbers[0], **{number: numbers[".".join(number)] for number in self.numbers}})


class TrialsPipeline(Pipeline):
    """The pipelines of several seeds as one, with the trial axis before that of the batch.

    Args:
      seeds: of the trials; trials of one seed share what is read.
    """

    def __init__(self, data, batch_size: int, seeds: Sequence[int]):
        self._of_seed = {
            seed: Pipeline(data.splits["train"], batch_size=batch_size, seed=seed, collate=data.collate)
            for seed in map(int, seeds)
        }
        self._seeds = list(map(int, seeds))
        self.source, self.batch_size = data.splits["train"], batch_size

    def block(self, step: int, steps: int) -> np.ndarray:
        """Records of `steps` batches, from `step` on: int64 [steps, K, B]."""
        found = {seed: pipeline.block(step, steps) for seed, pipeline in self._of_seed.items()}
        return np.stack([found[seed] for seed in self._seeds], axis=1)

    def example(self) -> Batch:
        """One row of one trial's batch, for its shapes: [1, ...]."""
        return self._of_seed[self._seeds[0]].example()

    def batch(self, step: int) -> Batch:
        """Batch `step` of every trial: arrays [K, B, ...]."""
        found = {seed: pipeline.batch(step) for seed, pipeline in self._of_seed.items()}
        batches = [found[seed] for seed in self._seeds]
        return {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}
