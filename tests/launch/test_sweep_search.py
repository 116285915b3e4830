"""The searches of a sweep: what they ask, which trials they end early, and that a killed one is continued."""

import importlib.util
import math

import pytest

from jaxdl.errors import InputError, RunError
from launch.sweeps.axes import parse_axes
from launch.sweeps.plan import grid_trials
from launch.sweeps.search import JOURNAL, SAMPLERS, SEARCHES, Fixed, StudySearch, importance, make_search

needs_optuna = pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="the extra `search`")

NUMBERS = ["learning_rate=loguniform(1e-5,1)", "model.dropout=uniform(0,0.5)"]
MIXED = [*NUMBERS, "model=mlp,cnn", "model.depth=randint(1,6) if model=cnn", "seed=0..3 with batch_size=8,16,32,64"]


def search_of(folder, texts, kind="tpe", number=None, *, base=(), seed=0, metric=("accuracy", "max"), prune="none"):
    axes = parse_axes(texts, base)
    return make_search(kind, axes, base, number=number, seed=seed, metric=metric, prune=prune, folder=folder)


def score(values):
    """A bowl with its maximum of 0 at learning rate 1e-3 and dropout 0.2."""
    rate, dropout = float(values["learning_rate"]), float(values["model.dropout"])
    return -((math.log10(rate) + 3) ** 2) - 10 * (dropout - 0.2) ** 2


def play(search, measure=score, state="done", most=None):
    """Asks one after the other and tells each; gives the trials."""
    trials = []
    while not search.exhausted and len(trials) != most:
        for trial in search.ask(1):
            search.tell(trial.name, state, measure(trial.values))
            trials.append(trial)
    search.close()
    return trials


# What is asked.


@pytest.mark.parametrize("kind, number", [("grid", None), ("random", 5)])
def test_a_list_is_asked_in_order_and_needs_no_file(tmp_path, kind, number):
    search = search_of(tmp_path, ["learning_rate=0.1,0.01", "seed=0..5"], kind, number)
    assert isinstance(search, Fixed)
    first = search.ask(3)
    rest = search.ask(100)
    assert len(first) == 3 and len(first + rest) == (number or 12) and search.exhausted and search.ask(1) == []
    assert not search.report(first[0].name, 1, 0.0)
    assert not list(tmp_path.iterdir())


@needs_optuna
@pytest.mark.parametrize("kind", ["tpe", "nsgaii"])
def test_a_sampler_chooses_within_the_axes(tmp_path, kind):
    trials = play(search_of(tmp_path, MIXED, kind, 25))
    assert len({trial.name for trial in trials}) == 25
    for trial in trials:
        values = trial.values
        assert 1e-5 <= float(values["learning_rate"]) <= 1 and 0 <= float(values["model.dropout"]) <= 0.5
        assert ("model.depth" in values) == (values["model"] == "cnn")
        assert int(values.get("model.depth", 1)) in range(1, 7)
        assert int(values["batch_size"]) == 8 * 2 ** int(values["seed"])
        assert list(values) == [name for name in values_in_order if name in values]


values_in_order = ["learning_rate", "model.dropout", "model", "model.depth", "seed", "batch_size"]


@needs_optuna
@pytest.mark.parametrize("kind", ["tpe", "qmc", "nsgaii"])
def test_a_search_repeats_from_its_seed(tmp_path, kind):
    runs = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        runs.append(play(search_of(tmp_path / name, NUMBERS, kind, 14, seed=seed)))
    assert runs[0] == runs[1] != runs[2]
    assert not {trial.name for trial in runs[0]} & {trial.name for trial in runs[2]}


@needs_optuna
def test_tpe_finds_more_than_random_draws(tmp_path):
    """Over five seeds of 40 trials; by hand, seeds 0 to 29: TPE has the better sum in every block of five."""
    best = {"tpe": 0.0, "random": 0.0}
    for seed in range(5):
        for kind in best:
            folder = tmp_path / f"{kind}{seed}"
            folder.mkdir()
            best[kind] += max(score(t.values) for t in play(search_of(folder, NUMBERS, kind, 40, seed=seed)))
    assert best["tpe"] > best["random"]


@needs_optuna
def test_a_sampler_asks_every_trial_of_a_finite_space_once(tmp_path):
    texts = ["learning_rate=0.1,0.01,0.001", "seed=randint(0,2)"]
    trials = play(search_of(tmp_path, texts, "tpe", 9), lambda values: -float(values["learning_rate"]))
    assert len({trial.name for trial in trials}) == 9


# Bad input.


@pytest.mark.parametrize(
    "texts, kind, number, told",
    [
        (["seed=0..3"], "tpee", 3, "there is no --search=tpee. Did you mean 'tpe'? There are grid, random, tpe"),
        (["seed=0..3"], "random", None, "--search=random needs to know how many trials: --trials=50."),
        (["seed=0..3"], "tpe", None, "--search=tpe needs to know how many trials"),
        (["seed=0..3"], "grid", 3, "--trials=3: a grid has as many trials as its axes make; --search=random draws 3."),
        (["a=uniform(0,1)"], "grid", 3, "give --search=random --trials=20"),
        (["seed=0..3"], "tpe", 5, "the axes make only 4 different trials; --search=grid, without --trials, runs"),
        (["a=1,2", "b=uniform(0,1) if a=1"], "qmc", 5, "cannot do with conditional axes ('b=uniform(0,1) if a=1')"),
        (["a=1,2", "b=uniform(0,1)"], "cmaes", 5, "needs drawn numbers"),
    ],
)
def test_what_a_search_cannot_do_is_a_line(tmp_path, texts, kind, number, told):
    with pytest.raises(InputError) as error:
        search_of(tmp_path, texts, kind, number)
    assert told in str(error.value) and "\n" not in str(error.value)


def test_no_such_pruner(tmp_path):
    with pytest.raises(InputError, match="there is no --prune=medain. Did you mean 'median'?"):
        search_of(tmp_path, ["seed=0..3"], "grid", prune="medain")


@pytest.mark.parametrize("kind, prune, what", [("tpe", "none", "--search=tpe"), ("grid", "median", "--prune=median")])
def test_without_optuna_the_line_says_what_to_install(tmp_path, monkeypatch, kind, prune, what):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError) as error:
        search_of(tmp_path, NUMBERS if kind == "tpe" else ["a=1,2"], kind, 3 if kind == "tpe" else None, prune=prune)
    assert str(error.value) == f"{what} needs Optuna: pip install -e '.[search]'."


@needs_optuna
@pytest.mark.parametrize("kind", [name for name, sampler in SAMPLERS.items() if sampler.package])
def test_a_sampler_says_which_package_it_needs(tmp_path, monkeypatch, kind):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found(name) if name == "optuna" else None)
    with pytest.raises(InputError, match=f"needs {SAMPLERS[kind].package}: pip install"):
        search_of(tmp_path, NUMBERS, kind, 5)


@needs_optuna
@pytest.mark.parametrize("kind", [kind for kind in SEARCHES if kind in SAMPLERS])
def test_every_sampler_that_is_named_is_optunas(kind):
    import optuna

    assert issubclass(getattr(optuna.samplers, SAMPLERS[kind].name), optuna.samplers.BaseSampler)


# Pruning.


def curve(best):
    """Ten evaluations that rise to `best`."""
    return [(step, best * step / 1000) for step in range(100, 1001, 100)]


def run_pruned(search, values):
    """Runs trials one after the other; gives, for each, the step at which it was ended, or None."""
    ended = {}
    for trial, best in zip(search.ask(len(values)), values):
        ended[trial.name] = next((step for step, v in curve(best) if search.report(trial.name, step, v)), None)
        search.tell(trial.name, "stopped" if ended[trial.name] else "done", None if ended[trial.name] else best)
    search.close()
    return list(ended.values())


@needs_optuna
@pytest.mark.parametrize("kind, texts, number", [("grid", ["seed=0..7"], None), ("random", NUMBERS, 8)])
@pytest.mark.parametrize("mode", ["max", "min"])
def test_median_ends_what_is_worse_than_half_of_five_that_are_done(tmp_path, kind, texts, number, mode):
    search = search_of(tmp_path, texts, kind, number, metric=("accuracy", mode), prune="median")
    sign = 1 if mode == "max" else -1
    values = [sign * value for value in (0.5, 0.6, 0.7, 0.8, 0.9, 0.65, 0.75, 0.95)]
    assert run_pruned(search, values) == [None] * 5 + [100, None, None]


@needs_optuna
def test_successive_halving_keeps_the_best_third_at_each_rung(tmp_path):
    search = search_of(tmp_path, ["seed=0..8"], "grid", prune="successive_halving")
    bests = [0.99, 0.1, 0.2, 0.3, 0.4, 0.95, 0.5, 0.6, 0.9]
    alive = {trial.name: best for trial, best in zip(search.ask(9), bests)}
    left = []
    for index in range(10):  # side by side, as where all trials are one program: nothing is done yet
        for name, best in list(alive.items()):
            if search.report(name, *curve(best)[index]):
                del alive[name]
        left.append(list(alive.values()))
    search.close()
    # Rungs stand at steps 100, 300 and 900.
    assert left == [[0.99, 0.95, 0.9]] * 2 + [[0.99]] * 8


@needs_optuna
def test_what_was_reported_or_told_before_changes_nothing(tmp_path):
    search = search_of(tmp_path, ["seed=0..7"], "grid", prune="median")
    run_pruned(search, [0.5, 0.6, 0.7, 0.8, 0.9, 0.1])
    search = search_of(tmp_path, ["seed=0..7"], "grid", prune="median")
    before = (tmp_path / JOURNAL).read_bytes()
    assert search.report("seed=5", 100, 0.01) and not search.report("seed=0", 100, 0.05)
    search.tell("seed=5", "stopped", None)
    search.tell("seed=0", "done", 0.1)
    assert (tmp_path / JOURNAL).read_bytes() == before


@needs_optuna
def test_a_trial_to_be_ended_stays_so_in_the_next_process(tmp_path):
    search = search_of(tmp_path, ["seed=0..8"], "grid", prune="successive_halving")
    first, second = search.ask(2)
    assert not search.report(first.name, 100, 0.9) and search.report(second.name, 100, 0.1)
    search = search_of(tmp_path, ["seed=0..8"], "grid", prune="successive_halving")
    assert [trial.name for trial in search.ask(2)] == [first.name, second.name]
    assert search.report(second.name, 100, 0.1) and not search.report(first.name, 100, 0.9)


# Continuing.


@needs_optuna
@pytest.mark.parametrize("kind, texts", [("tpe", MIXED), ("grid", ["seed=0..9"])])
def test_a_new_process_gets_what_was_asked_and_not_told_and_then_the_rest(tmp_path, kind, texts):
    number, prune = (10, "none") if kind == "tpe" else (None, "median")
    search = search_of(tmp_path, texts, kind, number, prune=prune)
    asked = search.ask(5)
    for trial in (asked[1], asked[3]):
        search.tell(trial.name, "done", 0.5)
    # No close: the process was killed.
    search = search_of(tmp_path, texts, kind, number, prune=prune)
    assert not search.exhausted
    again = search.ask(2) + search.ask(8)
    assert again[:3] == [asked[0], asked[2], asked[4]]
    assert len(again) == 8 and search.exhausted and search.ask(1) == []
    assert len({trial.name for trial in again + asked}) == 10
    if kind == "grid":
        assert asked + again[3:] == grid_trials(parse_axes(texts), ())


@needs_optuna
def test_a_trial_that_is_told_before_it_is_asked_again_is_not_asked(tmp_path):
    first, second = search_of(tmp_path, NUMBERS, "tpe", 2).ask(2)
    search = search_of(tmp_path, NUMBERS, "tpe", 2)
    search.tell(first.name, "done", 0.5)
    assert search.ask(2) == [second]


@needs_optuna
def test_more_trials_continue_a_study_and_fewer_end_it(tmp_path):
    first = play(search_of(tmp_path, NUMBERS, "tpe", 12))
    more = play(search_of(tmp_path, NUMBERS, "tpe", 20))
    assert len({trial.name for trial in first + more}) == 20
    assert search_of(tmp_path, NUMBERS, "tpe", 15).exhausted
    (tmp_path / "at_once").mkdir()
    assert play(search_of(tmp_path / "at_once", NUMBERS, "tpe", 20)) == first + more


@needs_optuna
@pytest.mark.parametrize("kind, prune", [("tpe", "median"), ("grid", "median")])
def test_a_kill_in_the_middle_of_any_write_loses_and_doubles_nothing(tmp_path, kind, prune):
    """The journal only grows: what a kill leaves is its beginning, cut anywhere."""
    texts, number = (MIXED, 4) if kind == "tpe" else (["learning_rate=0.1,0.01", "model.dropout=0,0.1"], None)

    def measure(search, trial):
        search.report(trial.name, 10, score(trial.values))
        search.tell(trial.name, "done", score(trial.values))

    search = search_of(tmp_path, texts, kind, number, prune=prune)
    undisturbed = [trial for _ in range(4) for trial in search.ask(1) if not measure(search, trial)]
    journal = (tmp_path / JOURNAL).read_bytes()
    ends = [index + 1 for index, byte in enumerate(journal) if byte == ord("\n")]
    for cut in sorted({0, *ends, *(end - 1 for end in ends), *range(0, len(journal), 499)}):
        (tmp_path / JOURNAL).write_bytes(journal[:cut])
        given = [trial.name for trial in undisturbed if f'"trial":"{trial.name}"'.encode() in journal[:cut]]
        search = search_of(tmp_path, texts, kind, number, prune=prune)
        asked = []
        while not search.exhausted:
            for trial in search.ask(1):
                asked.append(trial)
                measure(search, trial)
        told = [trial for trial in undisturbed if trial not in asked]
        assert all(trial.name in given for trial in told), cut
        assert len({trial.name for trial in told + asked}) == 4 == len(told + asked), cut
        assert {trial.name for trial in told + asked} == {trial.name for trial in undisturbed}, cut


@needs_optuna
def test_a_study_of_another_metric_is_not_continued(tmp_path):
    search_of(tmp_path, NUMBERS, "tpe", 2).close()
    with pytest.raises(InputError, match="was searched by the max of accuracy, and --metric=loss cannot"):
        search_of(tmp_path, NUMBERS, "tpe", 2, metric=("loss", "min"))


@needs_optuna
def test_a_damaged_study_is_a_line(tmp_path):
    search_of(tmp_path, NUMBERS, "tpe", 2).ask(2)
    lines = (tmp_path / JOURNAL).read_text().splitlines()
    (tmp_path / JOURNAL).write_text("\n".join([lines[0], "{", *lines[2:]]) + "\n")
    with pytest.raises(InputError, match="study.journal is damaged"):
        search_of(tmp_path, NUMBERS, "tpe", 2)


@needs_optuna
def test_a_trial_that_the_study_does_not_know(tmp_path):
    with pytest.raises(RunError, match="study.journal does not know the trial seed=1"):
        search_of(tmp_path, NUMBERS, "tpe", 2).tell("seed=1", "done", 1.0)


@needs_optuna
@pytest.mark.parametrize("state, value", [("failed", None), ("diverged", 0.9), ("stopped", 0.3), ("done", None)])
def test_a_trial_without_a_result_does_not_lead_the_search(tmp_path, state, value):
    search = search_of(tmp_path, NUMBERS, "tpe", 3)
    assert isinstance(search, StudySearch)
    for trial in search.ask(3):
        search.tell(trial.name, state, value)
    with pytest.raises(InputError, match="needs trials of different values; 0 are done"):
        importance(tmp_path)


# Importance.


@needs_optuna
@pytest.mark.parametrize("kind, number, prune", [("tpe", 30, "none"), ("grid", None, "median")])
def test_importance_is_that_of_what_matters(tmp_path, kind, number, prune):
    texts = ["learning_rate=0.1,0.01,0.001 with batch_size=8,16,32", "seed=0..4", "model=mlp,cnn"]
    measure = lambda values: math.log10(float(values["learning_rate"])) + 0.001 * int(values["seed"])
    play(search_of(tmp_path, texts, kind, number, prune=prune), measure)
    before = (tmp_path / JOURNAL).read_bytes()
    found = importance(tmp_path)
    assert next(iter(found)) == "learning_rate with batch_size" and found["learning_rate with batch_size"] > 0.9
    assert set(found) == {"learning_rate with batch_size", "seed", "model"}
    assert math.isclose(sum(found.values()), 1, rel_tol=1e-6)
    assert (tmp_path / JOURNAL).read_bytes() == before


@pytest.mark.parametrize("files", [[], ["sweep.json"]])
def test_no_study_has_no_importance(tmp_path, files):
    for name in files:
        (tmp_path / name).write_text("{}")
    with pytest.raises(InputError, match="has no study.journal"):
        importance(tmp_path)
