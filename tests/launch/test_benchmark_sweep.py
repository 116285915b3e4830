"""`launch.benchmark sweep` and `executor`: the loops by hand train the same trials, and the tables judge."""

import contextlib
import time

import numpy as np
import pytest

from jaxdl import experiment
from jaxdl.errors import InputError
from jaxdl.settings import parse
from launch import benchmark
from launch.benchmarks import executor, sweep, vmapped_loop
from launch.benchmarks.sweep import Sweep, Way
from launch.sweeps.directory import SweepDirectory
from launch.sweeps.plan import make_trial

SMALL = Sweep(learning_rate="0.001,0.1", seed="0..1", steps=60)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A sweep's directory with the small grid trained as one program, the job's seconds, and the data for the loops."""
    folder = tmp_path_factory.mktemp("benchmark")
    directory, trials = SweepDirectory(folder / "sweep"), SMALL.trials()
    directory.open()
    directory.add_trials(trials)
    began = time.monotonic()
    flags = ["--tensorboard=false", "--plots=false", "--progress=off"]
    settings = [
        parse([*trial.arguments(SMALL.base()), *flags, f"--workdir={directory.run(trial.name)}"]) for trial in trials
    ]
    experiment.run_trials(settings, folder / "group")
    seconds = time.monotonic() - began
    directory.close()
    sweep.write_data(folder / "digits.npz", SMALL.base(), trials)
    return directory, seconds, folder / "digits.npz"


def test_the_vmapped_loop_comes_to_the_losses_of_the_vectorized_sweep(trained):
    directory, _, data = trained
    ours = sweep.read_way(directory, "vectorized", {"seconds": 1.0, "CPU seconds": 1.0}, {})
    found = vmapped_loop.train(str(data), SMALL.steps)
    assert list(ours.loss) == [trial.name for trial in SMALL.trials()]
    # Roundings of 1e-7 grow a hundredfold or so in 60 steps; another batch or another rate makes a per cent at least.
    for name in ("first_loss", "loss", "accuracy"):
        np.testing.assert_allclose(found[name], list(getattr(ours, name).values()), rtol=1e-4)
    assert len(set(found["loss"])) == 4 and found["training"] > 0 and found["compiling"] > 0


def test_the_phases_of_a_job_are_its_whole_time(trained):
    directory, seconds, _ = trained
    phases = sweep.job_phases(directory, [trial.name for trial in SMALL.trials()], seconds)
    assert set(phases) == set(sweep.PHASES) - {"sweep command"}
    assert sum(phases.values()) == pytest.approx(seconds)
    assert min(phases.values()) > 0


def test_a_trial_that_did_not_end_is_told(trained):
    directory, _, _ = trained
    status = directory.run(SMALL.trials()[0].name) / "status.json"
    whole = status.read_text()
    status.write_text(whole.replace('"done"', '"diverged"'))
    with pytest.raises(sweep.RunError, match="is diverged, not done"):
        sweep.read_way(directory, "vectorized", {"seconds": 1.0, "CPU seconds": 1.0}, {})
    status.write_text(whole)


def way(name, trials=4, seconds=60.0, first=2.0, last=1.0):
    names = [f"trial{number}" for number in range(trials)]
    phases = dict.fromkeys(sweep.PHASES, seconds / len(sweep.PHASES))
    results = [dict.fromkeys(names, value) for value in (first, last, 0.9)]
    return Way(name, trials, seconds, seconds, phases, *results)


@pytest.mark.parametrize(
    "local, loop, status, message",
    [
        (way("local", seconds=900.0), way("loop"), 0, "\nas wanted"),
        (way("local", seconds=899.0), way("loop"), 1, "\nnot as wanted"),
        (way("local", trials=2, seconds=450.0), way("loop"), 0, "local: measured on the first 2 trials alone"),
        (way("local", seconds=900.0), way("loop", first=2.001), 1, "did not do the same work"),
        (way("local", seconds=900.0), way("loop", last=1.002), 1, "did not do the same work"),
        (way("local", seconds=900.0), way("loop", last=float("nan")), 1, "did not do the same work"),
        (way("local", seconds=900.0, first=2.001), way("loop"), 1, "did not do the same work"),
    ],
)
def test_the_report_judges_by_trials_a_minute_and_by_the_losses(capsys, local, loop, status, message):
    assert sweep.report([way("vectorized"), local, loop, way("torch")], SMALL) == status
    assert message in capsys.readouterr().out


def test_ways_of_one_program_are_measured_before_and_after_the_others(monkeypatch, capsys):
    done = []

    def measured(name, seconds):
        def measure(self, trials, folder, data):
            assert folder.is_dir() and not list(folder.iterdir())
            done.append(name)
            return way(name, seconds=seconds[done.count(name) - 1])

        measure.__name__ = name
        monkeypatch.setattr(Sweep, name, measure)

    measured("vectorized", [70.0, 50.0, 60.0])
    measured("vmapped_loop", [40.0, 30.0, 20.0])
    measured("local", [900.0])
    measured("torch", [800.0])
    monkeypatch.setattr(Sweep, "has_torch", lambda self: True)
    assert Sweep(learning_rate="0.001,0.1", seed="0..1", steps=60, repeats=3).run([]) == 0
    quick = ["vectorized", "vmapped_loop"]
    assert done == [*quick, *quick, "local", "torch", *quick]
    told = capsys.readouterr().out
    assert "vectorized: the median of 3, in their order 70.0, 50.0, 60.0 seconds." in told
    assert "the loop by hand" in told.lower() and "takes 50% of its time" in told
    assert "local: the median" not in told


def test_of_an_even_number_the_slower_one_in_the_middle_counts():
    assert sweep.median([way("a", seconds=seconds) for seconds in (4.0, 1.0, 3.0, 2.0)]).seconds == 3.0


def test_the_first_trials_alone_are_one_zipped_axis(monkeypatch, tmp_path):
    """Every way is given the grid's own axes, or the same trials by name."""
    commands = []
    monkeypatch.setattr(sweep, "run_module", lambda *command, cache: (commands.append(command), ("", {}))[1])
    small = Sweep(learning_rate="lin(0.1,0.3,3)", seed="0..1")
    for number in (6, 3):
        small._sweep(small.trials()[:number], tmp_path, [])
    axes = [[text for text in command if text.startswith("--sweep=")] for command in commands]
    assert axes[0] == ["--sweep=learning_rate=lin(0.1,0.3,3)", "--sweep=seed=0..1"]
    assert axes[1] == ["--sweep=learning_rate=0.1,0.1,0.2 with seed=0,1,0"]


def test_an_interpreter_without_torch_is_told_and_none_at_all_is_an_error(capsys, tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    assert not Sweep(torch_python=str(python)).has_torch()
    assert "PyTorch is left out" in capsys.readouterr().out
    with pytest.raises(InputError, match="--torch_python=/nowhere: No such file"):
        benchmark.main(["sweep", "--torch_python=/nowhere"])


@pytest.mark.reference
def test_the_torch_loop_from_our_weights_comes_to_our_losses(trained, monkeypatch):
    """It trains on the same batches, by the same optimizer and schedule."""
    import torch

    from launch.benchmarks import torch_trial

    directory, _, data = trained
    ours = sweep.read_way(directory, "vectorized", {"seconds": 1.0, "CPU seconds": 1.0}, {})
    for trial in SMALL.trials()[:2]:
        program = experiment.build(parse(trial.arguments(SMALL.base())))
        params = program.init(program.seed, program.pipeline(64).example()).params
        kernels = iter([np.array(params[layer]["kernel"]) for layer in ("hidden0", "hidden1", "output")])
        copy = lambda weight: weight.data.copy_(torch.from_numpy(next(kernels).T))
        monkeypatch.setattr(torch_trial.nn.init, "kaiming_normal_", copy)
        values = float(trial.values["learning_rate"]), int(trial.values["seed"])
        found = torch_trial.train(str(data), SMALL.steps, *values)
        # As for the vmapped loop.
        np.testing.assert_allclose(found["loss"], ours.loss[trial.name], rtol=1e-4)
        np.testing.assert_allclose(found["accuracy"], ours.accuracy[trial.name], rtol=1e-6)


@pytest.mark.reference
def test_torch_trials_run_as_processes(trained):
    _, _, data = trained
    way = Sweep(steps=SMALL.steps, torch_trials=2).torch(SMALL.trials(), data.parent, data)
    assert way.trials == 2 and list(way.loss) == [trial.name for trial in SMALL.trials()[:2]]
    assert min(way.accuracy.values()) > 0.4 and way.cpu_seconds > 0


@pytest.mark.parametrize(
    "seconds, workers, least",
    [([3.0, 1.0, 1.0, 1.0], 2, 3.0), ([1.0, 1.0, 3.0], 2, 4.0), ([1.0, 2.0], 1, 3.0), ([1.0], 4, 1.0)],
)
def test_trials_without_gaps_keep_their_order(seconds, workers, least):
    assert executor.without_gaps(seconds, workers) == least


@pytest.mark.parametrize("span, status, message", [(123.0, 0, "\nas wanted"), (125.0, 1, "\nnot as wanted")])
def test_the_executor_is_judged_by_the_gaps_between_trials(capsys, span, status, message):
    """One worker ends six seconds after the other, which is no fault of the executor."""
    timing = executor.Timing(trials=[60.0, 60.0, 62.0, 56.0], span=span, whole=130.0, own_cpu=1.0, trials_cpu=200.0)
    assert executor.report(timing, workers=2, steps=100) == status
    told = capsys.readouterr().out
    assert message in told and "1.00, 0.50% of the 200.0" in told


def test_the_steps_of_a_minute_follow_from_a_short_sweep(monkeypatch, tmp_path):
    """Of 13 seconds, 4 were training (500 steps a second), 3 were compiling, which later ones find done."""
    probe = SweepDirectory(tmp_path / "probe")
    probe.open()
    probe.add_trials([make_trial({"seed": "0"})])
    probe.run("seed=0").mkdir()
    (probe.run("seed=0") / "status.json").write_text('{"seconds": 4.0}')
    (probe.run("seed=0") / "environment.json").write_text('{"compile_seconds": 3.0}')
    timing = executor.Timing(trials=[13.0], span=13.0, whole=15.0, own_cpu=1.0, trials_cpu=10.0)
    times = []
    monkeypatch.setattr(executor.tempfile, "TemporaryDirectory", lambda: contextlib.nullcontext(tmp_path))
    monkeypatch.setattr(executor.Executor, "_time", lambda self, *args: (times.append(args), timing)[1])
    assert benchmark.main(["executor", "--workers=1", "--rounds=3"]) == 0
    assert [args[1:] for args in times] == [("probe", 2000, 1), ("sweep", 27_000, 3)]


def test_the_process_that_is_measured_tells_its_own_cpu_seconds(monkeypatch, capsys):
    monkeypatch.setattr(executor.sweep, "main", lambda argv: print(*argv) or 75)
    assert executor.main(["--workdir=/tmp/x"]) == 75
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "--workdir=/tmp/x" and float(told[1]) > 0
