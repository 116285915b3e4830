"""The one place where a run starts: settings become objects, and objects a run directory.

    settings = parse(["--flagfile=experiments/quickstart.flags", "--seed=1"])
    result = run(settings)

`build` makes the objects that the flags say; `run` trains them into a run directory; `restore` and `evaluate` read
one. Any part may be an object of one's own in place of flags: `run(settings, model=MyModel())`.
"""

import contextlib
import dataclasses
import datetime
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxdl import config
from jaxdl.errors import InputError, RunError
from jaxdl.settings import Settings, parse
from jaxdl.train.settings import CHANGEABLE, TrainerConfig


def build(settings: Settings, given: Mapping[str, Any] | None = None, check: bool = True):
    """The `Program` of a run: its data loaded and checked, its model made.

    Args:
      given: objects in place of parts: "model", "dataset" (a `Data`) or "task".
      check: trace a step, to see whether the parts fit.

    Raises:
      InputError: the parts do not fit together.
    """
    from jaxdl.data import checks
    from jaxdl.train.program import Program

    given = dict(given or {})
    trainer = settings.trainer
    data = given.get("dataset")
    if data is None:
        data = settings.make("dataset").load(trainer.data_dir)
    if "train" not in data.splits:
        raise InputError(
            f"dataset '{settings.names['dataset']}' has no training split; it has {', '.join(data.splits)}."
        )
    program = Program(
        **_parts(settings, data, given),
        data=data,
        total_steps=_total_steps(trainer, len(data.splits["train"])) or 1,
        seed=trainer.seed,
        precision=trainer.precision,
        remat=trainer.remat,
        gradient_accumulation=trainer.gradient_accumulation,
        on_nonfinite=trainer.on_nonfinite,
    )
    checks.check_image_shapes(data.splits)
    program.task.check(data)
    program = dataclasses.replace(program, scales=_scales(program, settings))
    if trainer.flops_budget is not None:
        program = dataclasses.replace(program, total_steps=_affordable_steps(program, settings))
    if check:
        trace(program, settings)
    return program


def _parts(settings: Settings, data, given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `Program` that the numbers among the flags make; they may be traced."""
    task = (given.get("task") or settings.make("task")).for_data(data)
    return {
        "model": task.wrap(given.get("model") or _make_model(settings, task.model_fields(data))),
        "task": task,
        "update": settings.make("update"),
        "optimizer": settings.make("optimizer"),
        "schedule": settings.make("schedule"),
        "augmentations": tuple(settings.make(f"augment.{name}") for name in settings.names["augment"]),
    }


def _scales(program, settings: Settings):
    """The factors by path that --parametrization asks for."""
    import jax

    def init(model):
        example = jax.tree.map(jax.numpy.asarray, program.pipeline(settings.trainer.batch_size).example())
        return dataclasses.replace(program, model=model).init(0, example).params

    return settings.make("parametrization").scales(program.model, init, program.update, program.optimizer)


def _total_steps(trainer: TrainerConfig, examples: int) -> int | None:
    """The run's length; None where --flops_budget says it, of which a step's cost must be known first."""
    if trainer.batch_size > examples:
        raise InputError(f"--batch_size={trainer.batch_size} is larger than the training split of {examples} examples.")
    if trainer.flops_budget is not None:
        return None
    return trainer.steps or max(1, round(trainer.epochs * examples / trainer.batch_size))


def _affordable_steps(program, settings: Settings) -> int:
    """As many steps as --flops_budget pays for. Raises: InputError, where that is none."""
    import jax

    from jaxdl.scaling.flops import parameter_count, six_nd

    trainer = settings.trainer
    if trainer.flops_rule == "6nd":
        example = program.pipeline(trainer.batch_size).example()
        parameters = parameter_count(jax.eval_shape(program.init, program.seed, example).params)
        tokens = example["inputs"].shape[1] if program.data.tokenizer else 1  # of an example
        cost = six_nd(parameters, trainer.batch_size * tokens)
    else:
        cost = trace(program, settings).flops
    if not cost:
        raise InputError("--flops_budget: a step of this model has no matrix product to count; give --steps.")
    if cost > trainer.flops_budget:
        raise InputError(
            f"--flops_budget={trainer.flops_budget:g} does not pay for one step, which takes {cost:.4g} FLOPs; "
            "give more, or lower --batch_size."
        )
    return int(trainer.flops_budget // cost)


def _make_model(settings: Settings, fields: Mapping[str, Any]):
    values = dict(settings.values["model"])
    for name, value in fields.items():
        if name not in values:
            raise InputError(
                f"model '{settings.names['model']}' has no field {name}, which task '{settings.names['task']}' needs."
            )
        if values[name] is not None and values[name] != value:
            raise InputError(f"--model.{name}={values[name]}: the dataset needs {value}; leave the flag out.")
        values[name] = value
    return settings.classes["model"](**values)


def trace(program, settings: Settings):
    """Traces a step, for the loop: what does not fit is told in a line, before anything is written."""
    from jaxdl.train.chunk import trace_step

    batch_size = settings.trainer.batch_size

    def reason(error: Exception) -> str:
        return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]

    misfits = (TypeError, ValueError, AssertionError, KeyError, ZeroDivisionError)  # JAX's own are TypeErrors
    try:
        return trace_step(program, batch_size)
    except InputError:
        raise
    except misfits as error:
        for number in getattr(program, "numbers", {}):  # of several trials: is it that Python branches on one?
            try:
                trace_step(program.only(number), batch_size)
            except misfits as cause:
                raise InputError(
                    f"--{'.'.join(number).removeprefix('update.')} cannot vary within one program ({reason(cause)}); "
                    f"take --executor=local, or name '{number[1]}' in `untraceable` of its class, for a program of "
                    "its own for each value."
                ) from error
        names = settings.names
        shapes = {name: tuple(value.shape) for name, value in program.pipeline(batch_size).batch(0).items()}
        raise InputError(
            f"model '{names['model']}', task '{names['task']}' and dataset '{names['dataset']}' do not fit: "
            f"{reason(error)} The batches are {shapes}."
        ) from error


# Running.


def prepare_devices(trainer: TrainerConfig):
    """Joins the other processes, sets the compilation cache up, and gives the placement."""
    import jax

    from jaxdl.sharding import Placement, initialize_distributed, make_mesh

    initialize_distributed(trainer.coordinator_address, trainer.num_processes, trainer.process_id)
    cache = trainer.compilation_cache
    if cache == "auto":
        cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", "~/.cache/jaxdl")
    if cache == "none":
        jax.config.update("jax_enable_compilation_cache", False)
    else:
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    return Placement(make_mesh(trainer.mesh), trainer.parallelism)


def run(settings: Settings, **given):
    """Trains into the run directory, or continues it; gives the loop's `Result`.

    Args:
      given: `model`, `dataset` (a `Data`) or `task` as objects, in place of flags.

    Raises:
      InputError: nothing was written. RunError: the run had begun, and status.json says how it ended.
    """
    import jax

    from jaxdl.train import branch, loop, vocabulary
    from jaxdl.train.checkpoints import Checkpoints

    trainer = settings.trainer
    if not trainer.workdir:
        stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        trainer = dataclasses.replace(trainer, workdir=str(pathlib.Path("runs") / f"{settings.title}-{stamp}"))
    placement = prepare_devices(trainer)
    record = _record(trainer, settings)
    _check_batches(placement, trainer)
    program = build(settings, given, check=False)
    traced = trace(program, settings)
    vocabulary.check(record.path, program.data)
    initial = _initial(program, trainer, record.path)
    branches = branch.check(settings, program, record.path, parse)
    with _opened([record], [settings], program, given):
        if branches:
            branch.take_over(record, trainer)
        if jax.process_index() == 0:
            print(f"{settings.title}: {program.total_steps} steps into {record.path}", flush=True)
        checkpoints = Checkpoints(record.path, keep=trainer.keep_checkpoints)
        runs = [_run(program, record, trainer)]
        [result] = loop.train(program, traced, trainer, placement, runs, checkpoints, initial)
        if result.error is not None:
            raise result.error
        _conclude(record, result)
        if jax.process_index() == 0:
            _report(result, record, program, placement, trainer)
        return result


def run_trials(trials: Sequence[Settings], folder: str | os.PathLike, ended: Sequence[str | None] | None = None):
    """Trains runs that differ in numbers and seeds alone as one compiled program, each into its own run directory.

    Args:
      trials: the runs, each with its workdir; all of one `Settings.program_key`.
      folder: where the checkpoint of all of them is while they train. The same trials go on from it.
      ended: how a trial ended before ("done", "stopped", "diverged"), for those that are to stay as they are.

    Returns:
      The loop's `Result`s, in their order. What became of each stands in its run directory, a divergence too.

    Raises:
      InputError: nothing was written: the runs are not one program, or a number cannot be traced.
      RunError: the runs had begun.
    """
    import jax

    from jaxdl.sharding import Placement, TrialPlacement, make_mesh
    from jaxdl.train import loop, vocabulary
    from jaxdl.train.drawing import draw
    from jaxdl.train.trial_checkpoints import SECONDS_BETWEEN, TrialCheckpoints
    from jaxdl.train.trials import Trials

    first = trials[0].trainer
    keys = [dict(settings.program_key()) for settings in trials]
    names = dict.fromkeys(name for key in keys for name in key)
    differing = [name for name in names if any(key.get(name) != keys[0].get(name) for key in keys)]
    if differing:
        raise InputError(f"these runs are not one program: {', '.join(differing)} differ, not numbers and seeds alone.")
    if first.on_nonfinite == "rollback" or first.parallelism != "jit" or first.profile_steps or first.branch_from:
        raise InputError(
            "trials that train as one program go in step: --on_nonfinite=rollback, --profile_steps, --branch_from and "
            "--parallelism other than jit need --executor=local."
        )
    prepare_devices(first)
    ended = list(ended or [None] * len(trials))
    records = [
        _record(settings.trainer, settings, writer=end is None) for settings, end in zip(trials, ended, strict=True)
    ]
    program = build(trials[0], check=False)

    def at(numbers):
        return dataclasses.replace(program, **_parts(trials[0].with_numbers(numbers), program.data, {}))

    placement = TrialPlacement(make_mesh(first.mesh, jax.devices()[: len(trials)]))
    seeds = [settings.trainer.seed for settings in trials]
    together = Trials(at, [settings.numbers() for settings in trials], seeds, placement.num_shards)
    for member in together.members:
        member.task.check(program.data)
    traced = trace(together, trials[0])
    for record in records:
        vocabulary.check(record.path, program.data)
    initial = _initial(program, first, pathlib.Path(folder))
    with _opened(records, trials, program, {}):
        print(f"{len(trials)} trials of {program.total_steps} steps as one program, into {folder}", flush=True)
        runs = [
            _run(program, record, settings.trainer, end)
            for record, settings, end in zip(records, trials, ended, strict=True)
        ]
        seconds = SECONDS_BETWEEN if first.checkpoint_every is None else 0.0
        checkpoints = TrialCheckpoints(pathlib.Path(folder).absolute(), together, seconds)
        results = loop.train(together, traced, first, placement, runs, checkpoints, initial)
        for record, result, member, settings in zip(records, results, together.members, trials, strict=True):
            if result.error is not None:
                _status_if_possible(record, "diverged", result.error)
            else:
                _conclude(record, result)
                if settings.trainer.plots and record.writer and result.ended:
                    draw(record, member, Placement(make_mesh("data:1")), settings.trainer, result)
        return results


def _initial(program, trainer: TrainerConfig, path: pathlib.Path):
    """What a run that has no checkpoint under `path` yet begins with by `--initialize_from`, for `Program.init`."""
    import jax

    from jaxdl.train import transfer
    from jaxdl.train.checkpoints import finished_steps

    if trainer.initialize_from is None or finished_steps(path):
        return None
    state = jax.eval_shape(program.init, program.seed, program.pipeline(trainer.batch_size).example())
    variables = {"params": state.params, **state.model_state}
    initial, told = transfer.load(trainer.initialize_from, program.model, variables, program.data)
    if jax.process_index() == 0:
        print(told, flush=True)
    return initial


def _record(trainer: TrainerConfig, settings: Settings, writer: bool = True):
    """The run directory, not opened yet, its flags compared."""
    import jax

    from jaxdl.train.record import RunDirectory

    record = RunDirectory(trainer.workdir, writer=writer and jax.process_index() == 0, tensorboard=trainer.tensorboard)
    record.check_flags(settings.flags, CHANGEABLE, settings.defaults)
    return record


def _run(program, record, trainer: TrainerConfig, ended: str | None = None):
    from jaxdl.train.run import Run

    selection = program.task.selection if "validation" in program.data.splits else None
    return Run(record, selection, trainer.patience, ended)


@contextlib.contextmanager
def _opened(records, of: Sequence[Settings], program, given: Mapping[str, Any]) -> Iterator[None]:
    """Holds the run directories; what goes wrong inside stands in their status.json."""
    from jaxdl.train import loop, vocabulary
    from jaxdl.train.checkpoints import finished_steps

    try:
        for record, settings in zip(records, of, strict=True):
            record.open()
            changes = record.check_flags(settings.flags, CHANGEABLE, settings.defaults)
            reached = max(finished_steps(record.path), default=0)
            if reached > program.total_steps:
                raise InputError(
                    f"{record.path} has a checkpoint at step {reached}, beyond the {program.total_steps} asked for; "
                    "ask for more steps, or name another --workdir."
                )
            record.write_flags(settings.flags, _flags_comment(record.path, given))
            vocabulary.write(record, program.data)
            if changes and record.writer:
                print(f"continuing {record.path} with changes: {'; '.join(changes)}", flush=True)
        try:
            yield
        except InputError:
            raise
        except BaseException as error:
            for record in records:
                _status_if_possible(record, "diverged" if isinstance(error, loop.Diverged) else "failed", error)
            raise
    finally:
        for record in records:
            record.close()


def _conclude(record, result) -> None:
    """Says in status.json how the run ended."""
    record.status(
        state=result.ended or "preempted",
        step=result.step,
        best_step=result.best_step,
        metrics=result.metrics,
    )


def _check_batches(placement, trainer: TrainerConfig) -> None:
    placement.check_batch("batch_size", trainer.batch_size, trainer.gradient_accumulation)
    if trainer.eval_batch_size is not None:
        placement.check_batch("eval_batch_size", trainer.eval_batch_size)


def _status_if_possible(record, state: str, error: BaseException) -> None:
    """Says in status.json how the run ended. On a full disk this fails, too, and the first error is the one to tell."""
    try:
        record.status(state=state, error=(str(error) or type(error).__name__).splitlines()[0])
    except RunError:
        pass


def _flags_comment(path: pathlib.Path, given: Mapping[str, Any]) -> str:
    text = f"Every flag of the run {path.name}. To repeat it:\n"
    text += f"python -m launch.train --flagfile={path}/flags.txt --workdir=NEW"
    parts = "".join(f"\nIts {name} was given from Python: {type(part).__name__}." for name, part in given.items())
    return text + parts


def _report(result, record, program, placement, trainer: TrainerConfig) -> None:
    """What a person reads when a run has ended."""
    from jaxdl.train.drawing import draw
    from jaxdl.train.progress import format_values

    if result.status:
        command = config.quote_command(
            ["python", "-m", "launch.train", f"--flagfile={record.path}/flags.txt", f"--workdir={record.path}"]
        )
        print(f"stopped at step {result.step} of {program.total_steps}, all saved. To go on: {command}", flush=True)
        return
    if trainer.plots:
        draw(record, program, placement, trainer, result)
    where = "the last step" if result.best_step is None else f"the best validation {program.task.selection[0]}"
    for split, values in result.metrics.items():
        print(f"{split}: {format_values(values)}  (step {result.best_step or result.step}, {where})")
    if not result.metrics:
        print(f"there is no held-out split; the training loss stands in {record.path}/metrics.jsonl")
    folder = config.quote_command([str(record.path)])
    print(f"run directory: {folder}")
    if trainer.plots:
        print(f"  to look at it:    {folder}/plots, or tensorboard --logdir={folder}/tensorboard")
    print(f"  to evaluate it:   python -m launch.evaluate --workdir={folder}")
    if program.task.sampler is not None:
        print(f"  to sample it:     python -m launch.sample --workdir={folder}")
    print(f"  to repeat it:     python -m launch.train --flagfile={folder}/flags.txt --workdir=NEW", flush=True)


def restore(workdir: str | os.PathLike, checkpoint: str = "best", overrides: Sequence[str] = (), **given):
    """A run directory's program and the state of one of its checkpoints; nothing is written, no lock is taken.

    Args:
      checkpoint: best (by the validation metric; without a validation split the latest), latest, or a step.
      overrides: flags that differ from the run's, such as --data_dir or --mesh.
      given: the parts that `run` got as objects.

    Returns:
      settings, program, placement, the checkpoint's step, and its state.

    Raises:
      InputError: no run directory, or no such checkpoint.
    """
    import jax
    import numpy as np

    from jaxdl.train import vocabulary
    from jaxdl.train.checkpoints import choose, read_state
    from jaxdl.train.record import read_metrics
    from jaxdl.train.stopping import best_record

    path = pathlib.Path(workdir).expanduser().absolute()
    if not (path / "flags.txt").exists():
        raise InputError(f"--workdir={path} is no run directory: it has no flags.txt.")
    settings = parse([f"--flagfile={path / 'flags.txt'}", *overrides], given=tuple(given))
    placement = prepare_devices(settings.trainer)
    _check_batches(placement, settings.trainer)
    program = build(settings, given)
    vocabulary.check(path, program.data)
    best = best_record(read_metrics(path), *program.task.selection, "validation")
    step = choose(path, checkpoint, None if best is None else best["step"])
    example = program.pipeline(settings.trainer.batch_size).example()
    shapes = jax.eval_shape(lambda seed: program.init(seed, example), np.uint32(0))
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=placement.replicated), shapes)
    return settings, program, placement, step, read_state(path, step, like)


def evaluate(
    workdir: str | os.PathLike, split: str = "test", checkpoint: str = "best", overrides: Sequence[str] = (), **given
) -> tuple[int, dict[str, Any]]:
    """Metrics of a run directory's checkpoint on a split; nothing is written. The arguments are those of `restore`.

    Returns:
      The checkpoint's step, and every metric by name.

    Raises:
      InputError: no run directory, checkpoint or split of that name.
    """
    from jaxdl.train.evaluation import Evaluator

    settings, program, placement, step, state = restore(workdir, checkpoint, overrides, **given)
    if split not in program.data.splits:
        raise InputError(f"--split={split}: this dataset has {', '.join(program.data.splits)}.")
    batch_size = settings.trainer.eval_batch_size or settings.trainer.batch_size
    [values] = Evaluator(program, placement, batch_size).metrics(state, split)
    return step, values
