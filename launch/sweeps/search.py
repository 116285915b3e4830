"""Which trials a sweep runs, and which of them it ends early.

    search = make_search("tpe", axes, base, number=50, seed=0, metric=("accuracy", "max"), prune="median", folder=SWEEP)
    search.ask(n)                     up to n trials to start, in order; [] when there are none
    search.exhausted                  True once `ask` has given every trial that there will be
    search.report(name, step, value)  a measurement of a trial on its way; True: end it now
    search.tell(name, state, value)   how it ended: done, diverged, stopped or failed; and its best value, or None
    search.close()

`ask` gives a trial once a process. A new process is given those that an earlier one was given and never told, first
and under their old names. To report a step again, as a resumed run does, or to tell a trial again, changes nothing.

A search that learns, or that prunes, keeps an Optuna study in the file `study.journal` of the sweep's directory, which
a kill at any moment leaves readable. What it asks next is a function of the seed, the trial's number, and how
the trials before it stand: with one worker the whole search repeats.
"""

import contextlib
import dataclasses
import importlib.util
import math
import os
import pathlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from jaxdl.catalog import nearest
from jaxdl.errors import InputError, RunError
from jaxdl.train.record import guard_disk
from launch.sweeps.axes import Axis, given_flags, in_dependency_order
from launch.sweeps.plan import Trial, check_number, draw_new, grid_trials, make_trial, random_trials

JOURNAL = "study.journal"

_STUDY = "sweep"
_TRIES = 10
"""How often a sampler may propose what it proposed before, until the trial is drawn at random."""


@dataclasses.dataclass(frozen=True)
class Sampler:
    """One of Optuna's samplers.

    Attributes:
      name: of its class in `optuna.samplers`.
      package: what must be installed beside Optuna, or empty.
      arguments: of its constructor, beside the seed.
      conditional: whether it takes conditional axes.
      listed: whether it takes lists and grids, which have no order for it.
      one_seed: whether it walks along one sequence; the others get a seed of its own for each trial, so that a search
        that is continued does not draw again what it drew.
    """

    name: str
    package: str = ""
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    conditional: bool = True
    listed: bool = True
    one_seed: bool = False


SAMPLERS = {
    "tpe": Sampler("TPESampler"),
    "gp": Sampler("GPSampler", package="torch", conditional=False),
    "cmaes": Sampler("CmaEsSampler", package="cmaes", conditional=False, listed=False),
    "qmc": Sampler("QMCSampler", arguments={"scramble": True}, conditional=False, one_seed=True),
    # Optuna's 50 would draw the whole of most sweeps at random, before the first generation.
    "nsgaii": Sampler("NSGAIISampler", arguments={"population_size": 10}),
}
"""Searches that learn from the trials before: tree-structured Parzen estimators, a Gaussian process, covariance
matrix adaptation, a scrambled Sobol sequence (which learns nothing), and a genetic algorithm."""

SEARCHES = ("grid", "random", *SAMPLERS)

PRUNERS = ("none", "median", "successive_halving")
"""`median` ends a trial whose best value is worse than the median, at that step, of the trials that are done, once
there are five; where all trials run side by side none is done, and none is ended. `successive_halving` ends a trial
that is not in the best third at the first evaluation, at three times that step, at nine times, ..."""


class Search(Protocol):
    """Gives the trials of a sweep; see the top of this file."""

    @property
    def exhausted(self) -> bool: ...

    def ask(self, number: int) -> list[Trial]: ...

    def report(self, name: str, step: int, value: float) -> bool: ...

    def tell(self, name: str, state: str, value: float | None) -> None: ...

    def close(self) -> None: ...


def known_trials(
    kind: str, axes: Sequence[Axis], base: Sequence[str], number: int | None, seed: int
) -> list[Trial] | None:
    """The trials of a grid or of a random search; None where they follow from how the others end.

    Raises:
      InputError: no such search; --trials missing, not wanted or too many; axes or packages that it cannot do with.
    """
    if kind not in SEARCHES:
        raise InputError(f"there is no --search={kind}.{nearest(kind, SEARCHES)} There are {', '.join(SEARCHES)}.")
    if kind == "grid":
        if number is not None and not any(axis.drawn for axis in axes):
            raise InputError(
                f"--trials={number}: a grid has as many trials as its axes make; --search=random draws {number}."
            )
        return grid_trials(axes, base)
    if number is None:
        raise InputError(f"--search={kind} needs to know how many trials: --trials=50.")
    if kind == "random":
        return random_trials(axes, base, number, seed)
    check_number(axes, base, number)
    sampler = SAMPLERS[kind]
    for axis in axes:
        if axis.conditions and not sampler.conditional:
            raise InputError(f"--search={kind} cannot do with conditional axes ('{axis.text}'); tpe and nsgaii can.")
        if axis.distribution is None and not sampler.listed:
            raise InputError(
                f"--search={kind} needs drawn numbers, such as loguniform(1e-4,1e-1), and '{axis.text}' is a list."
            )
    _need_optuna(f"--search={kind}")
    if sampler.package and importlib.util.find_spec(sampler.package) is None:
        raise InputError(
            f"--search={kind} needs {sampler.package}: pip install {sampler.package}. --search=tpe does without."
        )
    return None


def make_search(
    kind: str,
    axes: Sequence[Axis],
    base: Sequence[str],
    *,
    number: int | None,
    seed: int,
    metric: tuple[str, str],
    prune: str,
    folder: pathlib.Path,
) -> Search:
    """The search that the flags say; one that keeps a study opens it, and continues it where it is there.

    Args:
      kind: one of `SEARCHES`.
      base: the expanded flags that every trial has.
      number: of trials; None for a grid.
      metric: its name, and whether its "max" or "min" is best.
      prune: one of `PRUNERS`.
      folder: the sweep's directory, held by this process.

    Raises:
      InputError: what `known_trials` refuses; a study of another metric, or one that cannot be read.
    """
    if prune not in PRUNERS:
        raise InputError(f"there is no --prune={prune}.{nearest(prune, PRUNERS)} There are {', '.join(PRUNERS)}.")
    known = known_trials(kind, axes, base, number, seed)
    if known is not None and prune == "none":
        return Fixed(known)
    if prune != "none":
        _need_optuna(f"--prune={prune}")
    return StudySearch(kind, axes, base, known, number if known is None else len(known), seed, metric, prune, folder)


class Fixed:
    """A list of trials that is known beforehand; none is ended early."""

    def __init__(self, trials: Sequence[Trial]):
        self._left = list(trials)

    @property
    def exhausted(self) -> bool:
        return not self._left

    def ask(self, number: int) -> list[Trial]:
        asked, self._left = self._left[:number], self._left[number:]
        return asked

    def report(self, name: str, step: int, value: float) -> bool:
        return False

    def tell(self, name: str, state: str, value: float | None) -> None:
        pass

    def close(self) -> None:
        pass


class StudySearch:
    """A search with a study: its trials come from a sampler, or are known beforehand and may be ended early."""

    def __init__(
        self,
        kind: str,
        axes: Sequence[Axis],
        base: Sequence[str],
        known: Sequence[Trial] | None,
        number: int,
        seed: int,
        metric: tuple[str, str],
        prune: str,
        folder: pathlib.Path,
    ):
        import optuna

        self._optuna, self._kind, self._axes, self._base = optuna, kind, axes, list(base)
        self._given, self._ordered = given_flags(base), in_dependency_order(axes)
        self._known, self._number, self._seed, self._folder = known, number, seed, folder
        self._prune = prune
        with self._guarded():
            _cut_torn_line(folder / JOURNAL)
            self._storage = _storage(folder / JOURNAL)
            self._study = optuna.create_study(
                storage=self._storage,
                study_name=_STUDY,
                direction={"max": "maximize", "min": "minimize"}[metric[1]],
                load_if_exists=True,
            )
            self._check_metric(metric)
            self._study_id = self._storage.get_study_id_from_name(_STUDY)
            self._ids: dict[str, int] = {}
            self._again: list[Trial] = []
            self._take_up()
        if self._study.user_attrs.get("first_step"):
            self._set_pruner(self._study.user_attrs["first_step"])
        elif prune == "median":
            self._study.pruner = optuna.pruners.MedianPruner()

    @property
    def exhausted(self) -> bool:
        return not self._again and len(self._ids) >= self._number

    def ask(self, number: int) -> list[Trial]:
        asked, self._again = self._again[:number], self._again[number:]
        with self._guarded():
            while len(asked) < number and len(self._ids) < self._number:
                asked.append(self._sample() if self._known is None else self._add(self._next_known()))
        return asked

    def report(self, name: str, step: int, value: float) -> bool:
        if self._prune == "none":
            return False
        with self._guarded():
            trial_id = self._id(name)
            trial = self._storage.get_trial(trial_id)
            if trial.state.is_finished() or "pruned" in trial.user_attrs:
                return "pruned" in trial.user_attrs
            if step not in trial.intermediate_values:
                self._storage.set_trial_intermediate_value(trial_id, step, value)
            if self._prune == "successive_halving" and "first_step" not in self._study.user_attrs:
                self._study.set_user_attr("first_step", step)
                self._set_pruner(step)
            pruned = self._study.pruner.prune(self._study, self._storage.get_trial(trial_id))
            if pruned:  # remembered, as a pruner judges a step once
                self._storage.set_trial_user_attr(trial_id, "pruned", step)
            return pruned

    def tell(self, name: str, state: str, value: float | None) -> None:
        states = self._optuna.trial.TrialState
        with self._guarded():
            trial = self._storage.get_trial(self._id(name))
            if trial.state.is_finished():
                return
            self._again = [other for other in self._again if other.name != name]
            if state == "done" and value is not None and math.isfinite(value):
                self._study.tell(trial.number, value, states.COMPLETE)
            else:  # of samplers, TPE counts what was pruned as worse than the rest, and what failed not at all
                self._study.tell(trial.number, state=states.FAIL if state == "failed" else states.PRUNED)

    def close(self) -> None:
        self._storage.remove_session()

    # The study.

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Keeps Optuna's notes to itself, and tells a full disk and a damaged file in a line."""
        with warnings.catch_warnings(), guard_disk(self._folder):
            warnings.simplefilter("ignore")
            self._optuna.logging.set_verbosity(self._optuna.logging.ERROR)
            yield

    def _check_metric(self, metric: tuple[str, str]) -> None:
        before = self._study.user_attrs.get("metric")
        if before is None:
            self._study.set_user_attr("metric", list(metric))
        elif before != list(metric):
            raise InputError(
                f"{self._folder} was searched by the {before[1]} of {before[0]}, and --metric={metric[0]} cannot "
                "continue that; leave --metric as it was, or name another --workdir."
            )

    def _take_up(self) -> None:
        """Finds the trials of before. One without a name was never given to anyone: a kill came between."""
        states = self._optuna.trial.TrialState
        for trial in self._study.get_trials(deepcopy=False):
            name = trial.user_attrs.get("trial")
            if name is not None:
                self._ids[name] = self._storage.get_trial_id_from_study_id_trial_number(self._study_id, trial.number)
                if not trial.state.is_finished():
                    self._again.append(Trial(name, trial.user_attrs["values"]))
            elif not trial.state.is_finished():
                self._study.tell(trial.number, state=states.FAIL)

    def _id(self, name: str) -> int:
        if name not in self._ids:
            raise RunError(f"{self._folder / JOURNAL} does not know the trial {name}: name another --workdir.")
        return self._ids[name]

    def _set_pruner(self, first_step: int) -> None:
        # Optuna's own guess, a hundredth of a run, would judge several times at once at the first evaluation.
        self._study.pruner = self._optuna.pruners.SuccessiveHalvingPruner(min_resource=first_step, reduction_factor=3)

    # Trials.

    def _next_known(self) -> Trial:
        return next(trial for trial in self._known if trial.name not in self._ids)

    def _add(self, trial: Trial) -> Trial:
        """Takes a trial that is known into the study, in one write."""
        distributions = {axis.name: self._distribution(axis) for axis in self._axes if axis.flags[0] in trial.values}
        number = len(self._study.get_trials(deepcopy=False))
        self._study.add_trial(
            self._optuna.trial.create_trial(
                state=self._optuna.trial.TrialState.RUNNING,
                params={axis.name: self._parameter(axis, trial) for axis in self._axes if axis.name in distributions},
                distributions=distributions,
                user_attrs={"trial": trial.name, "values": dict(trial.values)},
            )
        )
        self._ids[trial.name] = self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
        return trial

    def _sample(self) -> Trial:
        """A new trial from the sampler; after it has proposed nothing new for long, one drawn at random."""
        index = len(self._ids)
        for attempt in range(_TRIES):
            self._study.sampler = self._make_sampler(index, attempt)
            proposed = self._study.ask()
            trial = self._suggest(proposed)
            if trial.name not in self._ids:
                proposed.set_user_attr("values", dict(trial.values))
                proposed.set_user_attr("trial", trial.name)
                self._ids[trial.name] = self._storage.get_trial_id_from_study_id_trial_number(
                    self._study_id, proposed.number
                )
                return trial
            self._study.tell(proposed, state=self._optuna.trial.TrialState.FAIL)
        import numpy as np

        rng = np.random.default_rng((self._seed, index, _TRIES))
        return self._add(draw_new(self._axes, self._base, rng, self._ids))

    def _make_sampler(self, index: int, attempt: int):
        sampler = SAMPLERS[self._kind]
        seed = self._seed
        if not sampler.one_seed:
            import numpy as np

            seed = int(np.random.SeedSequence((self._seed, index, attempt)).generate_state(1)[0])
        return getattr(self._optuna.samplers, sampler.name)(seed=seed, **sampler.arguments)

    def _suggest(self, proposed) -> Trial:
        """Has the sampler choose a value for every axis that holds, given those before it."""
        values: dict[str, str] = {}
        for axis in self._ordered:
            if axis.holds({**self._given, **values}):
                distribution = axis.distribution
                if distribution is None:
                    chosen = proposed.suggest_categorical(axis.name, _labels(axis))
                    values |= axis.rows[_labels(axis).index(chosen)]
                elif distribution.kind == "randint":
                    low, high = int(distribution.low), int(distribution.high)
                    values[axis.flags[0]] = str(proposed.suggest_int(axis.name, low, high))
                else:
                    log = distribution.kind == "loguniform"
                    number = proposed.suggest_float(axis.name, distribution.low, distribution.high, log=log)
                    values[axis.flags[0]] = distribution.text(number)
        return make_trial({flag: values[flag] for axis in self._axes for flag in axis.flags if flag in values})

    def _distribution(self, axis: Axis):
        distributions, drawn = self._optuna.distributions, axis.distribution
        if drawn is None:
            return distributions.CategoricalDistribution(_labels(axis))
        if drawn.kind == "randint":
            return distributions.IntDistribution(int(drawn.low), int(drawn.high))
        return distributions.FloatDistribution(drawn.low, drawn.high, log=drawn.kind == "loguniform")

    def _parameter(self, axis: Axis, trial: Trial) -> Any:
        if axis.distribution is None:
            return _labels(axis)[axis.rows.index({flag: trial.values[flag] for flag in axis.flags})]
        number = float(trial.values[axis.flags[0]])
        if axis.distribution.kind == "randint":
            return int(number)
        return min(max(number, axis.distribution.low), axis.distribution.high)  # its text is rounded


def importance(folder: str | os.PathLike) -> dict[str, float]:
    """How much of the metric's variance each axis explains, by the axis's name, the largest first; they add up to 1.

    By fANOVA (Hutter et al. 2014, An efficient approach for assessing hyperparameter importance) over the trials that
    are done. Conditional axes, which not all trials have, are left out. Nothing is written.

    Raises:
      InputError: there is no study, or none from which an importance follows.
    """
    path = pathlib.Path(folder) / JOURNAL
    if not path.exists():
        raise InputError(f"{folder} has no {JOURNAL}: only a search that learns or prunes keeps a study.")
    _need_optuna("the importance of the axes")
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.load_study(study_name=_STUDY, storage=_storage(path))
        done = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        if len({trial.value for trial in done}) < 2:
            raise InputError(f"the importance of the axes needs trials of different values; {len(done)} are done.")
        values = optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0)
        )
    return {name: float(value) for name, value in values.items()}


def _labels(axis: Axis) -> list[str]:
    """The listed values as names of choices; those of zipped flags in one."""
    return [" with ".join(row.values()) for row in axis.rows]


def _need_optuna(what: str) -> None:
    if importlib.util.find_spec("optuna") is None:
        raise InputError(f"{what} needs Optuna: pip install -e '.[search]'.")


class _Held:
    """In place of Optuna's lock of the file: the sweep's directory has one, which a dead holder lets go at once."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def _storage(path: pathlib.Path):
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    try:
        return JournalStorage(JournalFileBackend(str(path), lock_obj=_Held()))
    except (ValueError, KeyError) as error:
        raise InputError(f"{path} is damaged ({error}); name another --workdir.") from None


def _cut_torn_line(path: pathlib.Path) -> None:
    """Cuts away a last line that a kill left without its end: the next one would be appended to it."""
    if path.exists():
        content = path.read_bytes()
        if not content.endswith(b"\n"):
            os.truncate(path, content.rfind(b"\n") + 1)
