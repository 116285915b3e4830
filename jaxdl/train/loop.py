"""The one loop: what happens around the pure step. Batches in, metrics out, checkpoints, and leaving in order.

`train` starts from, in this order: 1. the newest checkpoint of the run directory that reads back; 2. else the
state that `Program.init` makes from the seed, and from parameters that it is given.
"""

import collections
import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.stages import Compiled, Lowered

from jaxdl.errors import RunError
from jaxdl.scaling.flops import parameter_count
from jaxdl.scaling.hardware import peak_flops
from jaxdl.sharding import PER_RUN, Placement
from jaxdl.train import memory
from jaxdl.train.checkpoints import Checkpoints
from jaxdl.train.chunk import Traced, make_chunk, pack, unpack
from jaxdl.train.compiling import compile_all
from jaxdl.train.environment import describe
from jaxdl.train.evaluation import Evaluator
from jaxdl.train.feed import make_feed
from jaxdl.train.program import Program, TrainState
from jaxdl.train.progress import Progress, format_values
from jaxdl.train.run import Run
from jaxdl.train.settings import TrainerConfig
from jaxdl.train.stopping import Signals
from jaxdl.train.trial_checkpoints import TrialCheckpoints
from jaxdl.train.trials import Trials
from jaxdl.train.watchdog import Watchdog

IN_FLIGHT = 3
"""Dispatches that may wait for the device: enough that it never waits for the host, few enough to stop soon."""

MOST_STEPS = 100
SECONDS_A_DISPATCH = 0.25
MAX_ROLLBACKS = 5
QUICK = {"xla_backend_optimization_level": 0}
"""Compiler options for what runs once: initialising an MLP compiles in 0.4 s instead of 1.5 s on a CPU."""


@dataclasses.dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes:
      status: the exit status: 0, or 75 and 130 when a signal came.
      ended: "done", "stopped" or "diverged"; None when a signal came.
      step: the last one.
      state: that of the step that counts.
      metrics: the evaluations of the step that counts.
      best_step: the step that counts, where validation chose one; None: it is the last.
      error: of a run that diverged.
    """

    status: int
    ended: str | None
    step: int
    state: TrainState
    metrics: dict[str, dict[str, Any]]
    best_step: int | None
    error: Exception | None = None


def train(
    program: Program | Trials,
    traced: Traced,
    config: TrainerConfig,
    placement: Placement,
    runs: Sequence[Run],
    checkpoints: Checkpoints | TrialCheckpoints,
    initial: Mapping[str, Mapping] | None = None,
) -> list[Result]:
    """Trains every member of the program to its end, or until asked to stop.

    Args:
      traced: what `trace_step` told of the program.
      config: the trainer's flags, which the members share.
      runs: one for each member. One that has ended is left as it is.
      checkpoints: not opened yet.
      initial: parameters for `Program.init`; where there is a checkpoint it alone counts.

    Raises:
      RunError: no checkpoint could be read, bad data, or the disk is full.
    """
    with Signals() as signals:
        return _Loop(program, traced, config, placement, list(runs), checkpoints, initial, signals).run()


class _Loop:
    """A program in training. `step` counts updates; everything else that moves is in `state` and `window`."""

    def __init__(self, program, traced, config, placement, runs, checkpoints, initial, signals):
        self.program, self.traced, self.config, self.placement, self.runs = program, traced, config, placement, runs
        self.checkpoints, self.initial, self.signals = checkpoints, initial, signals
        splits = program.data.splits
        self.pipeline = program.pipeline(config.batch_size, placement.local_rows(config.batch_size))
        self.held_out = [split for split in splits if split != "train"]
        self.metric = program.task.selection[0]
        self.folder = checkpoints.directory.parent
        self.run_axes = len(placement.per_run.spec)  # axes before a run's own: that of the trials, where there is one
        per_epoch = math.ceil(len(splits["train"]) / config.batch_size)
        self.eval_every = config.eval_every or max(per_epoch, config.log_every)
        self.checkpoint_every = config.checkpoint_every or self.eval_every
        self.pending = collections.deque()  # (step, window, token) whose values are on their way to the host
        self.tokens = collections.deque()  # outputs of the dispatches in flight
        self.numbers = {}  # small numbers on the devices, by value
        self.seconds = self.steps_timed = 0.0
        self.compile_seconds = 0.0
        self.frozen = False  # a state was seen to have frozen at a loss that was not finite
        self.profiling = False

    def run(self) -> list[Result]:
        """From the start or the checkpoint to the end."""
        watch = Watchdog(self.config.watchdog_seconds, self.folder / "stall.txt", self._beat)
        with watch as self.watchdog:
            try:
                return self._run()
            finally:
                self.checkpoints.close()

    def _beat(self) -> None:
        for run in self.runs:
            run.record.heartbeat()

    def _run(self) -> list[Result]:
        self._start()
        self.progress = Progress(
            self.config.progress,
            total=self.program.total_steps,
            initial=self.step,
            batch_size=self.config.batch_size * len(self.runs),
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
        """Compiled chunk, state, and where to go on from."""
        self.watchdog.at("reading the data")
        example = {name: np.asarray(value) for name, value in self.pipeline.example().items()}
        init = jax.jit(
            lambda start, initial: self.program.init(start, example, initial),
            out_shardings=self.placement.per_run,
            compiler_options=QUICK if self._on_cpu else None,
        )
        self.feed = make_feed(self.pipeline, self.placement, self.config, self._most_steps())
        eval_batch_size = self.config.eval_batch_size or self.config.batch_size
        self.evaluator = Evaluator(self.program, self.placement, eval_batch_size, keep=bool(self.feed.resident))
        start, initial = self.program.start, self.initial
        init = self._compile(init.lower(start, initial))
        self.watchdog.at("initialising the model")
        self.state = init(start, initial)
        self.initial = None
        memory.release()
        self.watchdog.at("restoring a checkpoint")
        self.checkpoints.open()
        restored = self.checkpoints.restore_latest(self._saved_tree())
        if restored is not None:
            _, tree = restored
            self._go_on_from(tree)
        self._read_position()
        self._open_runs()
        if restored is not None or self.config.on_nonfinite == "rollback":
            # Of what was restored nothing is written again, but which step is the best of each run is told.
            self._save()

    def _open_runs(self) -> None:
        """Every record goes on from this step; runs that have ended stay as they are."""
        members = self.state.step.size
        parameters, flops = parameter_count(self.state.params) // members, self.traced.flops // members  # of each
        for index, (run, member) in enumerate(zip(self.runs, self.program.members, strict=True)):
            if run.ended is not None:
                self.state = self.program.end(self.state, index)
                continue
            run.rewind(self.step)
            measured = {"compile_seconds": round(self.compile_seconds, 3), "flops_per_step": flops}
            run.record.environment(**describe(member, parameters, self.placement, **measured))
            run.record.status(state="running", step=self.step, steps=self.program.total_steps, error=None)

    def _saved_tree(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        window = jax.device_put(pack(self.window, self.run_axes), self.placement.per_run)
        return {"state": self.state, "window": window}

    def _go_on_from(self, tree: dict[str, Any]) -> None:
        window = unpack(jax.device_get(tree["window"]), self.traced.zeros, self.run_axes)
        self.state, self.window = tree["state"], jax.device_put(window, self.placement.per_run)

    def _read_position(self) -> None:
        """Reads from the state what the loop counts by itself from here on."""
        self.step, self.skipped = (int(np.max(x)) for x in (self.state.step, self.state.skipped_batches))

    @property
    def _on_cpu(self) -> bool:
        return self.placement.mesh.devices.flat[0].platform == "cpu"

    def _most_steps(self) -> int:
        """The most steps of one dispatch: what Ctrl-C may have to wait for, and the progress bar.

        XLA makes convolutions fast on a CPU outside of loops alone: in one, LeNet-5 takes over three times as long.
        """
        usual = 1 if self._on_cpu and self.traced.convolves else MOST_STEPS
        return min(self.config.steps_per_dispatch or usual, self.config.log_every)

    def _compile(self, init: Lowered) -> Compiled:
        """Compiles the chunk of steps, what gives a fresh window, and `init`, which is given back."""
        self.watchdog.at("compiling the step")
        began = time.monotonic()
        state = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self.placement.per_run), init.out_info
        )
        rows, _, _ = self.feed.take(0, 1, self.program.total_steps)
        self.fresh_window = jax.jit(lambda: self.traced.zeros, out_shardings=self.placement.per_run)
        self.window = self.fresh_window()
        places = (PER_RUN, PER_RUN, None, self.feed.row_axis, None, None)
        self.chunk = self.placement.parallel(make_chunk(self.program, self.feed), places, donate=(0, 1))
        if hasattr(self.chunk, "lower"):
            numbers = self._number(0), self._number(1)
            chunk = self.chunk.lower(state, self.window, self.feed.resident, rows, *numbers)
            evaluate = lambda: self.evaluator.lower(state, self.held_out[0])
            init, self.chunk = compile_all([init, chunk], [evaluate] if self.held_out else [])
        else:
            [init] = compile_all([init])
        self.compile_seconds = time.monotonic() - began
        return init

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
        self._end_due()
        if self._evaluation_due():  # the run was stopped before it could evaluate
            self._pause()
            if self._evaluation_due():  # and is to stop again: a further step would lose this evaluation
                return self._asked_to_stop()
        if self.step >= total or self._all_ended():
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
                self._end_diverged()
                self._pause()
                stop = self._asked_to_stop() if stop is None else stop
                stopping = stop is not None and (self.step < total or self._evaluation_due())
                if stopping or self.step >= total or self._all_ended():
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
        self.window = self.fresh_window()
        while len(self.pending) > 1:
            self._write_window()

    def _flush(self) -> None:
        """Writes every window that is still on its way."""
        while self.pending:
            self._write_window()
        self.tokens.clear()

    def _write_window(self) -> None:
        step, window, (_, nonfinite_step) = self.pending.popleft()
        written = []
        split = self.program.split(window)
        for run, member, metrics, bad in zip(self.runs, self.program.members, split, np.atleast_1d(nonfinite_step)):
            self.frozen |= bool(bad >= 0) and run.ended is None
            if bad >= 0 or run.ended is not None:  # this window is not whole; what happened is told later
                continue
            values = {name: metric.compute() for name, metric in metrics.items()}
            run.append(step, "train", values)
            self._tell_alarm(run, step, member.task.alarm(values))
            written.append(values)
        if written:
            self.progress.metrics(step, {name: np.mean([values[name] for values in written]) for name in written[0]})

    def _tell_alarm(self, run: Run, step: int, alarm: str | None) -> None:
        """What the task finds wrong with a training: told once, and in status.json for as long as it lasts."""
        if alarm != run.alarm:
            run.alarm = alarm
            self.progress.say(f"step {step}  {self._name(run)}{alarm or 'that is over'}")
            run.record.status(alarm=alarm and f"since step {step}: {alarm}")

    # Between steps.

    def _pause(self) -> None:
        """Evaluates where that is due, unless asked to stop meanwhile, and saves."""
        if self._evaluation_due():
            self._tell(self._evaluate())
        going = [run for run in self.runs if run.ended is None]
        self._end_due()
        if self.step % self.checkpoint_every == 0 or self.step in [run.best_step() for run in self.runs]:
            self._save()
        for run in going:
            run.record.progress(step=self.step, steps_per_second=self._speed(), seconds=round(self.seconds, 3))
            run.record.scalars(self.step, "speed", {"steps_per_second": self._speed()})

    def _name(self, run: Run) -> str:
        return f"{run.record.path.name}: " if len(self.runs) > 1 else ""

    def _tell(self, evaluated: dict[str, list[dict[str, Any]]]) -> None:
        """Writes evaluations down and shows the two numbers that matter; the rest is shown at the end."""
        going = [index for index, run in enumerate(self.runs) if run.ended is None]
        shown = []
        for split, of_runs in evaluated.items():
            for index in going:
                self.runs[index].append(self.step, split, of_runs[index])
            names = [name for name in dict.fromkeys((self.metric, "loss")) if name in of_runs[going[0]]]
            means = {name: float(np.mean([of_runs[index][name] for index in going])) for name in names}
            shown.append(f"{split}: {format_values(means)}")
        if shown:
            several = f", the mean of {len(going)} trials" if len(self.runs) > 1 else ""
            self.progress.say("   ".join([f"step {self.step}{several}", *shown]))

    def _evaluation_due(self) -> bool:
        """Whether this step is one that evaluates, and has not yet."""
        due = self.held_out and (
            self.step == self.program.total_steps or (self.step and self.step % self.eval_every == 0)
        )
        return bool(due) and any(run.ended is None and not run.evaluated(self.step) for run in self.runs)

    def _evaluate(self) -> dict[str, list[dict[str, Any]]]:
        """Every run's metrics of every held-out split; empty when a signal came: a resumed run will evaluate."""
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

    def _end_due(self) -> None:
        """Ends the runs whose patience has ended, or that were asked to stop."""
        for index, run in enumerate(self.runs):
            told = run.end_if_due(self._asked_to_end(run))
            if told is not None:
                self.progress.say(f"step {self.step}  {self._name(run)}{told}")
                self.state = self.program.end(self.state, index)

    def _all_ended(self) -> bool:
        return all(run.ended is not None for run in self.runs)

    def _asked_to_end(self, run: Run) -> str | None:
        """The reason in the run's file `stop`; several processes go by what the first one sees."""
        asked = run.record.asked_to_stop()
        if jax.process_count() == 1:
            return asked
        seen = multihost_utils.broadcast_one_to_all(np.int32(asked is not None))
        return (asked or "as the first process read") if seen else None

    def _save(self) -> None:
        if all(run.ended == "diverged" for run in self.runs):  # where they froze is no place to go on from
            return
        self.watchdog.at(f"saving a checkpoint at step {self.step}")
        self.checkpoints.save(self.step, self._saved_tree(), [run.best_step() for run in self.runs])

    def _diverged(self) -> dict[int, tuple[int, str]]:
        """The runs whose state has frozen since the last look: the step at which it did, and what was not finite."""
        found = zip(np.atleast_1d(jax.device_get(self.state.nonfinite_step)), self.runs, self.program.members)
        return {
            index: member.where_nonfinite(int(place))
            for index, (place, run, member) in enumerate(found)
            if place >= 0 and run.ended is None
        }

    def _end_diverged(self) -> None:
        """Ends the runs whose loss was not finite."""
        for index, (bad, what) in self._diverged().items():
            run = self.runs[index]
            rollbacks = run.record.read_status().get("rollbacks", 0)
            again = f" again, after {rollbacks} rollbacks" if rollbacks else ""
            run.ended = "diverged"
            run.error = Diverged(
                f"{what} or its gradient was not finite at step {bad}{again}; "
                "lower --learning_rate, set --clip_norm, or choose --on_nonfinite=skip or rollback."
            )
            if len(self.runs) > 1:
                self.progress.say(f"step {self.step}  {self._name(run)}{run.error}")
        self.frozen = False

    def _rolled_back(self) -> bool:
        """When the state has frozen: goes back to the checkpoint before, where that was asked for and may be done."""
        bad, what = self._diverged().get(0, (None, ""))
        rollbacks = self.runs[0].record.read_status().get("rollbacks", 0)
        if bad is None or self.config.on_nonfinite != "rollback" or rollbacks >= MAX_ROLLBACKS:
            return False
        self.checkpoints.wait()
        step, tree = self.checkpoints.restore_latest(self._saved_tree())
        self.checkpoints.discard_after(step)
        skipped = int(tree["state"].skipped_batches) + bad - step + 1
        self._go_on_from(tree)
        self.state = self.state.replace(skipped_batches=self.placement.replicate(np.int32(skipped)))
        self.frozen = False
        self._read_position()
        self.runs[0].rewind(self.step)
        self.runs[0].record.status(rollbacks=rollbacks + 1)
        told = f"{what} or its gradient was not finite at step {bad}"
        self.progress.say(f"{told}: back to step {step}, leaving out {bad - step + 1} batches")
        self.progress.restart(self.step)
        return True

    def _profile(self) -> None:
        if len(self.config.profile_steps) != 2:
            return
        first, last = self.config.profile_steps
        if self.step == first:
            jax.profiler.start_trace(str(self.folder / "profile"))
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
        if peak is None or not self.seconds:
            return None
        return round(self.traced.flops * self._speed() / (peak * self.placement.num_shards), 4)

    def _finish(self, status: int) -> list[Result]:
        """Waits for the last checkpoint and gathers the results."""
        self.watchdog.at("finishing the last checkpoint")
        if self.profiling:
            jax.profiler.stop_trace()
        for run in self.runs:
            run.ended = run.ended or ("done" if status == 0 else None)
        steps = np.atleast_1d(jax.device_get(self.state.step))
        measured = {}
        if self.seconds:  # a run that was done already keeps what it has
            measured = {"steps_per_second": self._speed(), "seconds": round(self.seconds, 3), "mfu": self._mfu()}
        results = []
        for run, step, (best_step, state) in zip(
            self.runs, steps, self.checkpoints.finish(self._saved_tree(), self.runs)
        ):
            run.record.progress(**measured)
            metrics = run.evaluations(int(step) if best_step is None else best_step)
            code = 0 if run.ended else status
            results.append(Result(code, run.ended, int(step), state, metrics, best_step, run.error))
        return results


class Diverged(RunError):
    """The loss was not finite, and the run was to halt."""
