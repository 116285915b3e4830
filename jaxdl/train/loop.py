"""The one loop: what happens around the pure step. Batches in, metrics out, checkpoints, and leaving in order.

`train` starts from, in this order: 1. the newest checkpoint of the run directory that reads back; 2. else the
state that `Program.init` makes from the seed.
"""

import collections
import dataclasses
import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from jaxdl.data.pipeline import Pipeline
from jaxdl.errors import RunError
from jaxdl.scaling.flops import xla_flops
from jaxdl.scaling.hardware import peak_flops
from jaxdl.sharding import Placement
from jaxdl.train import memory
from jaxdl.train.checkpoints import Checkpoints
from jaxdl.train.chunk import convolves, empty_window, make_chunk
from jaxdl.train.environment import describe
from jaxdl.train.evaluation import Evaluator
from jaxdl.train.feed import make_feed
from jaxdl.train.program import Program, TrainState
from jaxdl.train.progress import Progress, format_values
from jaxdl.train.record import RunDirectory, read_metrics
from jaxdl.train.settings import TrainerConfig
from jaxdl.train.stopping import Signals, best_record, evaluations_since_best
from jaxdl.train.watchdog import Watchdog

IN_FLIGHT = 3
"""Dispatches that may wait for the device: enough that it never waits for the host, few enough to stop soon."""

MOST_STEPS = 100
SECONDS_A_DISPATCH = 0.25
MAX_ROLLBACKS = 5


@dataclasses.dataclass(frozen=True)
class Result:
    """How a run ended: exit status, last step, state, and the evaluation lines of the step that counts."""

    status: int
    step: int
    state: TrainState
    metrics: dict[str, dict[str, Any]]
    best_step: int | None


def train(program: Program, config: TrainerConfig, placement: Placement, record: RunDirectory) -> Result:
    """Trains to the end, or until asked to stop.

    Raises:
      RunError: the loss was not finite, no checkpoint could be read, bad data, or the disk is full.
    """
    with Signals() as signals:
        return _Loop(program, config, placement, record, signals).run()


class _Loop:
    """One run in progress. `step` counts updates; everything else that moves is in `state` and `window`."""

    def __init__(self, program, config, placement, record, signals):
        self.program, self.config, self.placement, self.record, self.signals = (
            program,
            config,
            placement,
            record,
            signals,
        )
        splits = program.data.splits
        self.pipeline = Pipeline(
            splits["train"],
            batch_size=config.batch_size,
            seed=config.seed,
            rows=placement.local_rows(config.batch_size),
            collate=program.data.collate,
        )
        self.held_out = [split for split in splits if split != "train"]
        self.metric, self.mode = program.task.selection
        self.selects = "validation" in splits
        per_epoch = math.ceil(len(splits["train"]) / config.batch_size)
        self.eval_every = config.eval_every or max(per_epoch, config.log_every)
        self.checkpoint_every = config.checkpoint_every or self.eval_every
        self.checkpoints: Checkpoints | None = None  # opened once the step is compiled
        self.pending = collections.deque()  # (step, window, token) whose values are on their way to the host
        self.tokens = collections.deque()  # outputs of the dispatches in flight
        self.numbers = {}  # small numbers on the devices, by value
        self.seconds = self.steps_timed = 0.0
        self.compile_seconds = 0.0
        self.frozen = False  # the state was seen to have frozen at a loss that was not finite
        self.profiling = False
        self.flops: float | None = None

    def run(self) -> Result:
        """From the start or the checkpoint to the end."""
        watch = Watchdog(self.config.watchdog_seconds, self.record.path / "stall.txt", self.record.heartbeat)
        with watch as self.watchdog:
            try:
                return self._run()
            finally:
                if self.checkpoints is not None:
                    self.checkpoints.close()

    def _run(self) -> Result:
        self._start()
        self.progress = Progress(
            self.config.progress,
            total=self.program.total_steps,
            initial=self.step,
            batch_size=self.config.batch_size,
            quiet=jax.process_index() != 0,
        )
        try:
            begun = f", from the checkpoint at step {self.step}" if self.step else ""
            self.progress.say(f"compiled in {self.compile_seconds:.1f} s{begun}")
            status = self._steps()
            self._flush()
            return self._finish(status)
        finally:
            self.progress.close()

    def _start(self) -> None:
        """State, compiled chunk, and where to go on from."""
        self.watchdog.at("initialising the model")
        example = self.pipeline.batch(0)
        example = {name: np.asarray(value[:1]) for name, value in example.items()}
        init = jax.jit(lambda seed: self.program.init(seed, example), out_shardings=self.placement.replicated)
        self.state = init(np.uint32(self.config.seed))
        memory.release()
        self.feed = make_feed(self.pipeline, self.placement, self.config, self._most_steps())
        eval_batch_size = self.config.eval_batch_size or self.config.batch_size
        self.evaluator = Evaluator(self.program, self.placement, eval_batch_size, keep=bool(self.feed.resident))
        self._compile()
        memory.release()
        self.watchdog.at("restoring a checkpoint")
        self.checkpoints = Checkpoints(self.record.path, keep=self.config.keep_checkpoints)
        restored = self.checkpoints.restore_latest(self._saved_tree())
        if restored is not None:
            _, tree = restored
            self.state, self.window = tree["state"], tree["window"]
        self._read_position()
        self.record.rewind(self.step)
        self.records = self._recorded()
        self.record.environment(
            **describe(
                self.program,
                self.state,
                self.placement,
                compile_seconds=round(self.compile_seconds, 3),
                flops_per_step=self.flops,
            )
        )
        self.record.status(state="running", step=self.step, steps=self.program.total_steps, error=None)
        if restored is None and self.config.on_nonfinite == "rollback":
            self._save()

    def _recorded(self) -> list[dict[str, Any]]:
        """The lines of metrics up to this step, also where another process has not cut the later ones yet."""
        return [entry for entry in read_metrics(self.record.path) if entry["step"] <= self.step]

    def _saved_tree(self):
        return {"state": self.state, "window": self.window}

    def _read_position(self) -> None:
        """Reads from the state what the loop counts by itself from here on."""
        self.step, self.skipped = int(self.state.step), int(self.state.skipped_batches)

    def _most_steps(self) -> int:
        """The most steps of one dispatch: what Ctrl-C may have to wait for, and the progress bar.

        XLA makes convolutions fast on a CPU outside of loops alone: in one, LeNet-5 takes over three times as long.
        """
        on_cpu = self.placement.mesh.devices.flat[0].platform == "cpu"
        usual = 1 if on_cpu and convolves(self.program, self.state, self.pipeline.batch(0)) else MOST_STEPS
        return min(self.config.steps_per_dispatch or usual, self.config.log_every)

    def _compile(self) -> None:
        """Compiles the chunk of steps."""
        self.watchdog.at("compiling the step")
        began = time.monotonic()
        rows, _, _ = self.feed.take(0, 1, self.program.total_steps)
        self.zeros = self.placement.replicate(empty_window(self.program, self.feed, self.state, rows))
        self.window = self._fresh_window()
        axes = (None, None, None, self.feed.row_axis, None, None)
        function = self.placement.parallel(make_chunk(self.program, self.feed), axes, donate=(0, 1))
        if hasattr(function, "lower"):
            numbers = self._number(0), self._number(1)
            function = function.lower(self.state, self.window, self.feed.resident, rows, *numbers).compile()
            flops = xla_flops(function)
            self.flops = None if flops is None else flops * self.placement.num_shards
        self.chunk = function
        self.compile_seconds = time.monotonic() - began

    def _fresh_window(self):
        return jax.tree.map(jnp.copy, self.zeros)

    def _number(self, value: int):
        """An int32 on the devices, sent once: sending it anew takes as long as a small step."""
        if value not in self.numbers:
            self.numbers[value] = self.placement.replicate(np.int32(value))
        return self.numbers[value]

    # Steps.

    def _steps(self) -> int:
        """Runs to the last step (0), or to where it is asked to stop (75, 130)."""
        total, began = self.program.total_steps, time.monotonic()
        self.progress.restart(self.step)
        if self._evaluation_due():  # the run was stopped before it could evaluate
            self._pause()
        if self.step >= total or self._patience_ended():
            return 0
        # Processes must dispatch the same steps, so they cannot each go by their own clock.
        chunk_steps, adapts = (1, True) if jax.process_count() == 1 else (self.feed.most_steps, False)
        while True:
            self._profile()
            most = min(self._next_event() - self.step, self.config.steps_per_dispatch or chunk_steps)
            self.watchdog.at(f"reading the batch of step {self.step}")
            rows, first, count = self.feed.take(self.step + self.skipped, most, total + self.skipped)
            self.watchdog.at(f"training at step {self.step}")
            self.state, self.window, token = self.chunk(
                self.state, self.window, self.feed.resident, rows, self._number(first), self._number(count)
            )
            self.step += count
            self.steps_timed += count
            self._throttle(token)
            speed = self.steps_timed / (self.seconds + time.monotonic() - began)
            if adapts and self.steps_timed > count:  # the first dispatch says nothing of the speed
                chunk_steps = max(1, min(int(speed * SECONDS_A_DISPATCH), 2 * chunk_steps))
            self.progress.advance(self.step, speed)
            if self.step % self.config.log_every == 0 or self.step == total:
                self._log(token)
            stop = self._asked_to_stop()
            pause = self._evaluation_due() or self.step % self.checkpoint_every == 0 or self.step == total
            if not (pause or stop is not None or self.frozen):
                continue
            self.watchdog.at(f"training at step {self.step}")
            jax.block_until_ready(token)
            self.seconds += time.monotonic() - began
            self._flush()
            if not self._rolled_back():
                self._pause()
                stop = self._asked_to_stop() if stop is None else stop
                stopping = stop is not None and (self.step < total or self._evaluation_due())
                if stopping or self.step >= total or self._patience_ended():
                    self._save()
                    return stop if stopping else 0
            began = time.monotonic()

    def _next_event(self) -> int:
        """The next step after which something else than a step happens."""
        every = [self.config.log_every, self.eval_every, self.checkpoint_every]
        events = [(self.step // n + 1) * n for n in every] + [self.program.total_steps]
        return min(events + [at for at in self.config.profile_steps if at > self.step])

    def _throttle(self, token) -> None:
        """Waits for the dispatch `IN_FLIGHT` ago, so that few are ever queued."""
        self.tokens.append(token)
        if len(self.tokens) > IN_FLIGHT:
            jax.block_until_ready(self.tokens.popleft())

    def _asked_to_stop(self) -> int | None:
        """The exit status asked for by a signal; several processes agree at the steps that log."""
        if jax.process_count() == 1:
            return self.signals.status
        if self.step % self.config.log_every:
            return None
        asked = multihost_utils.process_allgather(np.int32(self.signals.status or 0))
        return int(asked.max()) or None

    def _log(self, token) -> None:
        """Sends the window's metrics on their way to the host, and begins a new window."""
        for leaf in jax.tree.leaves(self.window):
            leaf.copy_to_host_async()
        self.pending.append((self.step, self.window, token))
        self.window = self._fresh_window()
        while len(self.pending) > 1:
            self._write_window()

    def _flush(self) -> None:
        """Writes every window that is still on its way."""
        while self.pending:
            self._write_window()
        self.tokens.clear()

    def _write_window(self) -> None:
        step, window, (_, nonfinite_step) = self.pending.popleft()
        self.frozen |= int(nonfinite_step) >= 0
        if self.frozen:  # this window is not whole; what happened is told by `_rolled_back`
            return
        values = {name: metric.compute() for name, metric in jax.device_get(window).items()}
        self.progress.metrics(step, values)
        self._append(step, "train", values)

    def _append(self, step: int, split: str, values) -> None:
        scalars = {name: value for name, value in values.items() if isinstance(value, (int, float))}
        self.records.append({"step": step, "split": split, **scalars})
        self.record.metrics(step, split, scalars)

    # Between steps.

    def _pause(self) -> None:
        """Evaluates where that is due, unless asked to stop meanwhile, and saves."""
        if self._evaluation_due():
            self._tell(self._evaluate())
        best = self._best()
        if self.step % self.checkpoint_every == 0 or (best is not None and best["step"] == self.step):
            self._save()
        self.record.status(step=self.step, steps_per_second=self._speed(), seconds=round(self.seconds, 3))
        self.record.scalars(self.step, "speed", {"steps_per_second": self._speed()})

    def _tell(self, evaluated: dict[str, dict[str, Any]]) -> None:
        """Writes evaluations down and shows the two numbers that matter; the rest is shown at the end."""
        shown = []
        for split, values in evaluated.items():
            self._append(self.step, split, values)
            first = {name: values[name] for name in dict.fromkeys((self.metric, "loss")) if name in values}
            shown.append(f"{split}: {format_values(first)}")
        if shown:
            self.progress.say("   ".join([f"step {self.step}", *shown]))

    def _evaluation_due(self) -> bool:
        """Whether this step is one that evaluates, and has not yet."""
        due = self.held_out and (
            self.step == self.program.total_steps or (self.step and self.step % self.eval_every == 0)
        )
        return bool(due) and not any(e["step"] == self.step and e["split"] != "train" for e in reversed(self.records))

    def _evaluate(self) -> dict[str, dict[str, Any]]:
        """Metrics of every held-out split; empty when a signal came meanwhile, as a resumed run will evaluate."""
        result = {}
        for split in self.held_out:
            self.watchdog.at(f"evaluating {split} at step {self.step}")
            values = self.evaluator.metrics(self.state, split, self._may_go_on)
            if values is None:
                return {}
            result[split] = values
        return result

    def _may_go_on(self) -> bool:
        self.watchdog.at(f"evaluating at step {self.step}")
        return jax.process_count() > 1 or self.signals.status is None

    def _patience_ended(self) -> bool:
        """Whether the validation metric has not improved for `patience` evaluations in a row."""
        if self.config.patience is None or not self.selects:
            return False
        waited = evaluations_since_best(self.records, self.metric, self.mode, "validation")
        if waited >= self.config.patience:
            self.progress.say(
                f"step {self.step}  stopped early: {self.metric} has not improved for {waited} evaluations"
            )
        return waited >= self.config.patience

    def _best(self):
        return best_record(self.records, self.metric, self.mode, "validation") if self.selects else None

    def _save(self) -> None:
        self.watchdog.at(f"saving a checkpoint at step {self.step}")
        best = self._best()
        self.checkpoints.best_step = None if best is None else best["step"]
        self.checkpoints.save(self.step, self._saved_tree())

    def _rolled_back(self) -> bool:
        """When the state has frozen: goes back to the checkpoint before, if that was asked for.

        Raises:
          RunError: the loss was not finite, and the run is to halt, or has rolled back too often.
        """
        bad = int(self.state.nonfinite_step)
        if bad < 0:
            return False
        told = f"the loss or its gradient was not finite at step {bad}"
        rollbacks = self.record.read_status().get("rollbacks", 0)
        if self.config.on_nonfinite != "rollback" or rollbacks >= MAX_ROLLBACKS:
            again = f" again, after {rollbacks} rollbacks" if rollbacks else ""
            raise Diverged(
                f"{told}{again}; lower --learning_rate, set --clip_norm, or choose --on_nonfinite=skip or rollback."
            )
        self.checkpoints.wait()
        step, tree = self.checkpoints.restore_latest(self._saved_tree())
        self.checkpoints.discard_after(step)
        skipped = int(tree["state"].skipped_batches) + bad - step + 1
        self.state = tree["state"].replace(skipped_batches=self.placement.replicate(np.int32(skipped)))
        self.window, self.frozen = tree["window"], False
        self._read_position()
        self.record.rewind(self.step)
        self.records = self._recorded()
        self.record.status(rollbacks=rollbacks + 1)
        self.progress.say(f"{told}: back to step {step}, leaving out {bad - step + 1} batches")
        self.progress.restart(self.step)
        return True

    def _profile(self) -> None:
        if len(self.config.profile_steps) != 2:
            return
        first, last = self.config.profile_steps
        if self.step == first:
            jax.profiler.start_trace(str(self.record.path / "profile"))
            self.profiling = True
        elif self.profiling and self.step >= last:
            jax.block_until_ready(self.state)
            jax.profiler.stop_trace()
            self.profiling = False

    def _speed(self) -> float:
        return round(self.steps_timed / self.seconds, 3) if self.seconds else 0.0

    def _mfu(self) -> float | None:
        """Model FLOPs utilisation: the share of the devices' peak that the steps took; None where that is not known."""
        peak = peak_flops(self.placement.mesh.devices.flat[0])
        if peak is None or self.flops is None or not self.seconds:
            return None
        return round(self.flops * self._speed() / (peak * self.placement.num_shards), 4)

    def _finish(self, status: int) -> Result:
        """Waits for the last checkpoint and gathers the result."""
        self.watchdog.at("finishing the last checkpoint")
        self.checkpoints.wait()
        self.record.status(steps_per_second=self._speed(), seconds=round(self.seconds, 3), mfu=self._mfu())
        if self.profiling:
            jax.profiler.stop_trace()
        best = self._best()
        best_step = None if best is None else best["step"]
        if best_step not in self.checkpoints.steps():  # there is no validation split, or that checkpoint was damaged
            best_step = None
        counts = self.step if best_step is None else best_step
        metrics = {
            entry["split"]: {name: value for name, value in entry.items() if name not in ("step", "split")}
            for entry in self.records
            if entry["step"] == counts and entry["split"] != "train"
        }
        state = self.state
        if status == 0 and best_step is not None and best_step != self.step:
            state = self.checkpoints.restore(best_step, self._saved_tree())["state"]
        return Result(status, self.step, state, metrics, best_step)


class Diverged(RunError):
    """The loss was not finite, and the run was to halt."""
