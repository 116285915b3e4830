"""The slurm executor: against a real Slurm where one is installed, and against commands that only pretend."""

import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

from jaxdl.errors import InputError, RunError
from launch.executors import slurm, slurm_task
from launch.executors.base import Ended, Job, train_job
from launch.executors.slurm import Slurm
from launch.sweeps.directory import SweepDirectory
from launch.sweeps.plan import Trial
from tests.launch import slurm_cluster

ROOT = pathlib.Path(__file__).parents[2]
FLAGFILE = ROOT / "experiments" / "foundations" / "mlp_digits.flags"
QUICK = ["--eval_every=100", "--tensorboard=false"]


def wait_for(condition, seconds: float = 60):
    """What the condition gives, once it gives something."""
    give_up = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(0.1)
    return found


def collect(executor: Slurm, names, seconds: float = 60) -> dict[str, Ended]:
    """How these jobs ended, once all have."""
    ended: dict[str, Ended] = {}
    wait_for(lambda: ended.update(executor.poll()) or set(names) <= set(ended), seconds)
    return ended


def open_executor(sweep: SweepDirectory, workers: int | None = None, **fields) -> Slurm:
    executor = Slurm(**fields)
    executor.open(sweep, workers)
    return executor


def python(sweep: SweepDirectory, name: str, code: str, *arguments: str) -> Job:
    return Job(name, (name,), (sys.executable, "-c", code, *arguments), sweep.log(name))


def one_line(error: pytest.ExceptionInfo) -> str:
    told = str(error.value)
    assert "\n" not in told
    return told


def make_sweep(path: pathlib.Path, *flags: str) -> SweepDirectory:
    sweep = SweepDirectory(path)
    sweep.open()
    sweep.write_plan({"base": [f"--flagfile={FLAGFILE}", *QUICK, *flags], "axes": []})
    return sweep


@pytest.fixture(autouse=True)
def look_often(monkeypatch):
    for name, seconds in {"LOOK_SECONDS": 0.1, "QUEUE_SECONDS": 0.5, "SETTLE_SECONDS": 2}.items():
        monkeypatch.setattr(slurm, name, seconds)


# A real Slurm.


@pytest.fixture(scope="module")
def shared_cluster():
    if why := slurm_cluster.missing():
        pytest.skip(why)
    with slurm_cluster.running() as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", str(shared_cluster.config))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("XLA_FLAGS", "")
    yield shared_cluster
    shared_cluster.run("scancel", f"--user={os.getuid()}")
    wait_for(lambda: not shared_cluster.run("squeue", "--noheader"))


def status(sweep: SweepDirectory, name: str) -> dict:
    try:
        return json.loads((sweep.run(name) / "status.json").read_text())
    except FileNotFoundError:
        return {"state": "waiting", "step": 0}


def test_arguments_and_environment_arrive_as_meant(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("API_TOKEN", "do-not-tell")
    monkeypatch.setenv("MY_DATA", "/data of mine")
    awkward = ["a b", "'", '"', "$(exit 3)", "%a", "\\", ";"]
    sweep = make_sweep(tmp_path / 'it\'s $HOME "of" %j x')
    code = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)])); sys.exit(3)"
    executor = open_executor(sweep, environment=("MY_DATA",))
    executor.start([python(sweep, "first", code, *awkward), python(sweep, "second", "print('second')")])
    assert executor.held().keys() == {"first", "second"}
    assert collect(executor, ["first", "second"]) == {"first": Ended(3), "second": Ended(0)}
    assert executor.held() == {}
    arguments, environment = json.loads(sweep.log("first").read_text())
    assert arguments == awkward
    assert environment["MY_DATA"] == "/data of mine" and environment["PATH"] == os.environ["PATH"]
    assert "API_TOKEN" not in environment
    assert sweep.log("second").read_text() == "second\n"
    written = "".join(file.read_text() for file in (sweep.path / "slurm").rglob("*") if file.is_file())
    assert "do-not-tell" not in written and "/data of mine" not in written
    assert "exit status 3" in next((sweep.path / "slurm").glob("*/0.out")).read_text()


def test_whatever_takes_trials_away_they_end_as_if_nothing_had(cluster, tmp_path):
    path = tmp_path / "sweep"
    flags = [
        f"--flagfile={FLAGFILE}",
        *QUICK,
        "--steps=4000",
        "--sweep=keep_checkpoints=2..5",
    ]  # which changes no metric
    command = [sys.executable, "-m", "launch.sweep", *flags, "--executor=slurm", f"--workdir={path}"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    sweep = SweepDirectory(path)
    take = {
        1: lambda id: cluster.run("scontrol", "requeue", id),
        2: lambda id: cluster.run("scancel", "--batch", "--signal=TERM", id),  # as --signal does it before the limit
        3: lambda id: cluster.run("scontrol", "update", f"NodeName={cluster.nodes[1]}", "State=DOWN", "Reason=test"),
    }
    while take:
        assert process.poll() is None
        for index in list(take):
            if status(sweep, f"keep_checkpoints={index + 2}")["step"]:
                array = cluster.run("squeue", "--noheader", "--array", "--format=%F").split()[0]
                take.pop(index)(f"{array}_{index}")
        time.sleep(0.05)
    process.kill()  # the jobs go on, and the command typed again finds them
    process.wait()
    again = subprocess.run([*command[:3], f"--workdir={path}"], cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    runs = [sweep.run(f"keep_checkpoints={number}") for number in range(2, 6)]
    assert [status(sweep, run.name)["state"] for run in runs] == ["done"] * 4
    first, *others = ((run / "metrics.jsonl").read_text().splitlines() for run in runs)
    for other in others:
        assert other == first
    restarts = [json.loads(file.read_text())["restart"] for file in path.glob("slurm/*/*.begun")]
    assert sum(restarts) >= 3


@pytest.mark.parametrize("processes", [1, 2])
def test_stopped_trials_have_saved(cluster, tmp_path, processes):
    sweep = make_sweep(tmp_path / "sweep", "--steps=1000000")
    extra = f"--nodelist={cluster.nodes[0]}"
    executor = open_executor(sweep, max_jobs=1, tasks_per_node=processes, extra=extra)
    executor.start([train_job(sweep, Trial(name, {})) for name in ("runs", "waits")])
    wait_for(lambda: status(sweep, "runs")["step"])
    assert executor.held() == {"runs": "running", "waits": "queued"}
    executor.stop()
    ended = collect(executor, ["runs", "waits"])
    assert ended["runs"].status in slurm_task.PREEMPTED and ended["waits"] == Ended(None, "CANCELLED")
    told = status(sweep, "runs")
    assert told["state"] == "preempted"
    assert (sweep.run("runs") / "checkpoints" / str(told["step"])).is_dir()
    environment = json.loads((sweep.run("runs") / "environment.json").read_text())
    assert environment["processes"] == processes
    assert not sweep.run("waits").exists()
    assert open_executor(sweep).held() == {}


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"partition": "nowhere"}, "invalid partition specified: nowhere"),
        ({"memory": "999999G"}, "Memory specification can not be satisfied"),
        ({"gpus": "4"}, "Invalid generic resource"),
        ({"time": "soon"}, "Invalid --time specification"),
        ({"extra": "--no-such-option"}, "unrecognized option"),
    ],
)
def test_what_sbatch_refuses_is_one_line(cluster, tmp_path, fields, message):
    sweep = make_sweep(tmp_path / "sweep")
    executor = open_executor(sweep, **fields)
    with pytest.raises(InputError, match=message) as error:
        executor.start([python(sweep, "job", "")])
    assert one_line(error).startswith("sbatch refuses: ")
    assert executor.held() == {} and open_executor(sweep).held() == {}


def test_a_job_that_can_never_start_has_ended(cluster, tmp_path):
    sweep = make_sweep(tmp_path / "sweep")
    executor = open_executor(sweep, nodes=3)
    executor.start([python(sweep, "large", "")])
    assert collect(executor, ["large"])["large"] == Ended(1, "Slurm will never start it: PartitionConfig")
    wait_for(lambda: not cluster.run("squeue", "--noheader"))


# Commands that pretend.

CONFIGURED = "MaxArraySize            = 3\nMaxJobCount = 10\n"


class Pretender:
    """Slurm's commands as scripts: each writes its arguments down, and prints what `answer` says."""

    def __init__(self, folder: pathlib.Path, monkeypatch):
        self.folder = folder
        folder.mkdir()
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        for name in ("sbatch", "squeue", "scontrol", "scancel"):
            self.answer(name, "")
        self.answer("scontrol", CONFIGURED)

    def answer(self, name: str, text: str, error: str = "") -> None:
        """What the command prints from now on; with an `error`, it fails."""
        (self.folder / f"{name}.text").write_text(text)
        (self.folder / f"{name}.error").write_text(error)
        script = self.folder / name
        script.write_text(
            f'#!/bin/sh\necho "{name} $@" >> "{self.folder}/asked"\ncat "{self.folder}/{name}.text"\n'
            f'cat "{self.folder}/{name}.error" >&2\n[ ! -s "{self.folder}/{name}.error" ]\n'
        )
        script.chmod(0o755)

    def asked(self, name: str) -> list[str]:
        """How the command was called."""
        lines = (self.folder / "asked").read_text().splitlines()
        return [line for line in lines if line.startswith(f"{name} ")]

    def queue(self, sweep: SweepDirectory, **states: str) -> None:
        """Sets what squeue tells of the elements of all submissions, by the name of their job: "STATE reason"."""
        lines = []
        for file in (sweep.path / "slurm").glob("*/jobs.json"):
            for index, job in enumerate(json.loads(file.read_text())):
                if job["name"] in states:
                    state, _, reason = states[job["name"]].partition(" ")
                    lines.append(f"{file.parent.name}|7|{index}|{state}|{reason or 'None'}\n")
        self.answer("squeue", "".join(lines))


@pytest.fixture
def pretender(tmp_path, monkeypatch):
    return Pretender(tmp_path / "bin", monkeypatch)


def started(sweep: SweepDirectory, *names: str, **fields) -> Slurm:
    executor = open_executor(sweep, **fields)
    executor.start([python(sweep, name, "") for name in names])
    return executor


def end(sweep: SweepDirectory, index: int, status: int, *, final: bool) -> None:
    folder = next((sweep.path / "slurm").glob("*/jobs.json")).parent
    (folder / f"{index}.ended").write_text(json.dumps({"status": status, "told": "", "final": final}))


def test_flags_become_options(pretender, tmp_path):
    sweep = make_sweep(tmp_path / "sweep")
    fields = {"partition": "gpu", "account": "me", "qos": "low", "time": "1-0", "gpus": "a100:2", "cpus": 4}
    fields |= {"memory": "16G", "nodes": 2, "tasks_per_node": 2, "constraint": "fast", "max_jobs": 5, "grace": 30}
    started(sweep, "a", "b", "c", "d", extra="--exclude=n1,n2 --comment='of mine'", **fields)
    first, second = pretender.asked("sbatch")
    for option in (
        *("--partition=gpu", "--account=me", "--qos=low", "--time=1-0", "--gpus-per-node=a100:2", "--cpus-per-task=4"),
        *("--mem=16G", "--nodes=2", "--ntasks-per-node=2", "--constraint=fast", "--signal=B:TERM@30", "--requeue"),
        *("--array=0-2%5", "--exclude=n1,n2", "--comment=of mine", f"{sweep.path}/slurm/batch.sh"),
    ):
        assert f" {option} " in first
    assert " --array=0-0%5 " in second  # of MaxArraySize=3 there is room for three in one


def test_a_preview_is_what_would_be_typed(tmp_path):
    sweep = make_sweep(tmp_path / "a sweep")
    sbatch, first, second = Slurm(time="30").preview([python(sweep, name, "1 + 1") for name in ("a", "b")])
    assert sbatch.startswith("sbatch --requeue ") and " --array=0-N " in sbatch and " --time=30 " in sbatch
    assert f"'{sweep.path}/slurm/SUBMISSION'" in sbatch
    assert [first, second] == [f"{number}: {sys.executable} -c '1 + 1'" for number in (0, 1)]


def test_squeue_that_fails_ends_no_job(pretender, tmp_path, monkeypatch):
    sweep = make_sweep(tmp_path / "sweep")
    executor = started(sweep, "a")
    pretender.queue(sweep, a="RUNNING")
    wait_for(lambda: executor.held() == {"a": "running"})
    pretender.answer("squeue", "", error="slurm_load_jobs error: Unable to contact slurm controller\n")
    give_up = time.monotonic() + slurm.SETTLE_SECONDS + 1
    while time.monotonic() < give_up:
        assert executor.poll() == {} and executor.held() == {"a": "running"}
        time.sleep(0.1)
    monkeypatch.setattr(slurm, "SILENCE_SECONDS", 1)
    with pytest.raises(RunError, match="squeue has not answered") as error:
        wait_for(lambda: executor.poll())
    assert "Unable to contact slurm controller" in one_line(error)


@pytest.mark.parametrize(
    "queued, left, ended",
    [
        ({"a": "NODE_FAIL"}, None, Ended(None, "NODE_FAIL")),
        ({"a": "TIMEOUT"}, 75, Ended(75, "TIMEOUT")),
        ({}, None, Ended(None, "it left the queue")),
        ({"a": "CANCELLED"}, None, Ended(None, "CANCELLED")),
        ({"a": "PENDING launch failed requeued held"}, None, None),
    ],
)
def test_a_job_that_says_nothing_more(pretender, tmp_path, queued, left, ended):
    sweep = make_sweep(tmp_path / "sweep")
    executor = started(sweep, "a")
    if left is not None:
        end(sweep, 0, left, final=False)
    pretender.queue(sweep, a="PENDING BeginTime")
    assert executor.poll() == {} and executor.held() == {"a": "queued"}
    pretender.queue(sweep, **queued)
    ended = ended or Ended(1, "Slurm will never start it: launch failed requeued held")
    assert collect(executor, ["a"]) == {"a": ended}
    assert executor.poll() == {}


def test_the_same_command_again_finds_what_lives(pretender, tmp_path):
    sweep = make_sweep(tmp_path / "sweep")
    started(sweep, "done", "lives", "gone")
    end(sweep, 0, 0, final=True)
    pretender.queue(sweep, done="COMPLETED", lives="PENDING Resources")
    executor = open_executor(sweep, workers=3)
    assert executor.held() == {"lives": "queued"} and executor.poll() == {}
    assert executor.room() == 2
    executor.stop()
    some = [line for line in pretender.asked("scancel") if line.endswith(" 7_1")]
    assert ["--state=PENDING" in some[0], "--batch --signal=TERM" in some[1]] == [True, True]
    assert (next((sweep.path / "slurm").glob("*/1.stop"))).exists()


def test_an_answer_of_sbatch_that_was_lost(pretender, tmp_path):
    sweep = make_sweep(tmp_path / "sweep")
    executor = open_executor(sweep)
    pretender.answer("sbatch", "", error="sbatch: error: Batch job submission failed: Socket timed out\n")
    # The queue has whatever it is asked for.
    (pretender.folder / "squeue").write_text(
        '#!/bin/sh\nfor a in "$@"; do case "$a" in --name=*) echo "${a#--name=}|7|0|PENDING|None";; esac; done\n'
    )
    executor.start([python(sweep, "a", "")])
    assert executor.held() == {"a": "queued"}


def test_no_slurm_and_no_cluster(tmp_path, monkeypatch):
    sweep = make_sweep(tmp_path / "sweep")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="there is no `scontrol` on PATH") as error:
        open_executor(sweep)
    one_line(error)
    pretender = Pretender(tmp_path / "bin", monkeypatch)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    pretender.answer("scontrol", "", error="scontrol: error: Unable to contact slurm controller (connect failure)\n")
    with pytest.raises(InputError) as error:
        open_executor(sweep)
    assert one_line(error) == "no Slurm cluster answers: Unable to contact slurm controller (connect failure)."


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"extra": "somewhere"}, "'somewhere' is no option"),
        ({"extra": "--array=0-9"}, "--array=0-9 is given by the sweep itself"),
        ({"extra": "-J name"}, "-J is given by the sweep itself"),
        ({"extra": "--comment='x"}, "No closing quotation"),
        ({"environment": ("NO_SUCH_VARIABLE",)}, "NO_SUCH_VARIABLE: there is no such variable"),
    ],
)
def test_wrong_flags(pretender, tmp_path, fields, message):
    with pytest.raises(InputError, match=message) as error:
        open_executor(make_sweep(tmp_path / "sweep"), **fields)
    one_line(error)


# The element of an array, by itself.


def run_task(folder: pathlib.Path, code: str, restart: int = 0, grace: float = 5) -> subprocess.Popen:
    """Starts element 0 of a submission whose job is that Python code."""
    folder.mkdir(exist_ok=True)
    job = {"name": "a", "command": [sys.executable, "-c", code], "log": str(folder / "log"), "runs": [str(folder)]}
    (folder / "jobs.json").write_text(json.dumps([job]))
    numbers = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "0", "SLURM_RESTART_COUNT": str(restart)}
    return subprocess.Popen(
        [sys.executable, "-m", "launch.executors.slurm_task", str(folder), "1", str(grace)],
        cwd=ROOT,
        env={**os.environ, **numbers},
        stdout=subprocess.PIPE,
        text=True,
    )


def ended_file(folder: pathlib.Path) -> dict:
    return json.loads((folder / "0.ended").read_text())


def test_a_job_without_progress_is_given_up(pretender, tmp_path):
    folder = tmp_path / "submission"
    pretender.answer("squeue", "RUNNING\n")
    ran = []
    for restart in range(slurm_task.MOST_IDLE + 1):
        task = run_task(folder, "raise SystemExit(75)", restart)
        assert task.wait(timeout=30) == 75
        ran.append(ended_file(folder)["final"])
    assert ran == [False] * slurm_task.MOST_IDLE + [True]
    assert len(pretender.asked("scontrol")) == slurm_task.MOST_IDLE
    assert ended_file(folder)["told"] == f"started {slurm_task.MOST_IDLE} times without progress"


def test_a_job_that_gets_further_goes_on_for_ever(pretender, tmp_path):
    folder = tmp_path / "submission"
    pretender.answer("squeue", "RUNNING\n")
    for restart in range(slurm_task.MOST_IDLE + 2):
        step = {"state": "preempted", "step": restart + 1}
        task = run_task(
            folder, f"open({str(folder / 'status.json')!r}, 'w').write({json.dumps(step)!r}); exit(75)", restart
        )
        assert task.wait(timeout=30) == 75
        assert not ended_file(folder)["final"]


@pytest.mark.parametrize("state, requeues", [("RUNNING", True), ("COMPLETING", False), ("", False)])
def test_only_a_job_that_nobody_ends_puts_itself_back(pretender, tmp_path, state, requeues):
    pretender.answer("squeue", f"{state}\n")
    assert run_task(tmp_path / "submission", "raise SystemExit(75)").wait(timeout=30) == 75
    asked = pretender.folder / "asked"
    assert ("scontrol requeue 7_0" in asked.read_text()) == requeues
    assert not ended_file(tmp_path / "submission")["final"]


def test_a_job_that_slurm_started_elsewhere_leaves_without_a_word(pretender, tmp_path):
    folder = tmp_path / "submission"
    task = run_task(folder, "import time; print('up', flush=True); time.sleep(60)")
    wait_for(lambda: (folder / "log").exists() and "up" in (folder / "log").read_text())
    (folder / "0.begun").write_text(json.dumps({"restart": 1, "node": "other", "steps": 0, "idle": 1}))
    assert task.wait(timeout=30) == 128 + 15
    assert not (folder / "0.ended").exists() and not (pretender.folder / "asked").exists()


def test_a_run_that_does_not_save_in_time_is_killed(pretender, tmp_path):
    folder = tmp_path / "submission"
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    task = run_task(folder, code, grace=1)
    wait_for(lambda: (folder / "log").exists() and "up" in (folder / "log").read_text())
    (folder / "0.stop").touch()
    task.terminate()
    assert task.wait(timeout=30) == 128 + 9
    assert ended_file(folder) == {"status": -9, "told": "", "final": True}


def test_a_run_that_is_done_when_it_is_killed_is_done(pretender, tmp_path):
    folder = tmp_path / "submission"
    pretender.answer("squeue", "RUNNING\n")
    done = json.dumps({"state": "done", "step": 3})
    code = f"import os; open({str(folder / 'status.json')!r}, 'w').write({done!r}); os.kill(os.getpid(), 15)"
    assert run_task(folder, code).wait(timeout=30) == 0
    assert ended_file(folder) == {"status": 0, "told": "", "final": True}
    (folder / "0.ended").unlink()  # as if the node had been lost before it could be written
    assert run_task(folder, "raise SystemExit(1)", restart=1).wait(timeout=30) == 0


def test_an_end_that_slurm_did_not_see(pretender, tmp_path):
    folder = tmp_path / "submission"
    assert run_task(folder, "raise SystemExit(3)").wait(timeout=30) == 3
    assert run_task(folder, "print('again')", restart=1).wait(timeout=30) == 3
    assert "again" not in (folder / "log").read_text()
