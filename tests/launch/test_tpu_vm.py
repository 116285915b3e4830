"""The tpu_vm executor, against a gcloud of our own that plays the states of queued resources and runs what ssh gets."""

import json
import os
import pathlib
import shlex
import subprocess
import sys
import time

import pytest

from jaxdl.errors import InputError, RunError
from launch.executors import tpu_host, tpu_vm
from launch.executors.base import Ended, train_job
from launch.executors.tpu_vm import TpuVm
from launch.sweeps.directory import SweepDirectory
from launch.sweeps.plan import Trial

REPOSITORY = str(pathlib.Path(__file__).parents[2])

GCLOUD = r"""#!{python}
import json, pathlib, subprocess, sys

folder = pathlib.Path({folder!r})
arguments = sys.argv[1:]
with open(folder / "calls.jsonl", "a") as calls:
    calls.write(json.dumps(arguments) + "\n")
world = json.loads((folder / "world.json").read_text())
words = [a for a in arguments if not a.startswith("-")][2:]
flags = dict(a[2:].partition("=")[::2] for a in arguments if a.startswith("--"))
kind, verb, name = (words + [""])[:3]
for refused, told in world["refuses"].items():
    if refused == verb:
        sys.exit(told)
if verb == "create":
    (folder / "tpus" / name).write_text(world["begins"])
elif verb == "delete":
    (folder / "tpus" / name).unlink()
elif verb == "list":
    states = {{path.name: path.read_text() for path in (folder / "tpus").iterdir()}}
    error = {{"failedData": {{"error": {{"message": "no\n capacity"}}}}}}
    resources = [{{"name": "projects/p/locations/z/queuedResources/" + name, "state": {{"state": state, **error}}}}
                 for name, state in states.items()]
    print(json.dumps(resources))
elif verb == "describe":
    print(json.dumps({{"networkEndpoints": [{{"ipAddress": host, "port": 8470}} for host in world["hosts"]]}}))
elif verb == "ssh":
    assert (folder / "tpus" / name).read_text() == "ACTIVE" and flags["worker"] == "all"
    words = flags["command"].split(" ")  # gcloud takes the command apart so, and ssh puts it together again
    sys.exit(subprocess.run(["sh", "-c", " ".join(words)]).returncode)
"""

PYTHON = r"""#!{python}
import json, os, signal, sys, time

if "launch.executors.tpu_host" in sys.argv:
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
flags = dict(a[2:].partition("=")[::2] for a in sys.argv if a.startswith("--"))
print(json.dumps(sys.argv[1:]), flush=True)
if "ends" in flags:
    sys.exit(int(flags["ends"]))
time.sleep(60)
"""

FLAGS = {
    "zone": "us-west4-a",
    "accelerator_type": "v5litepod-4",
    "runtime_version": "v2-alpha-tpuv5-lite",
    "directory": REPOSITORY,
}


class World:
    """What the fake gcloud sees: `begins` is the state of a new queued resource, `refuses` answers by verb."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        (folder / "tpus").mkdir(parents=True)
        (folder / "calls.jsonl").touch()
        self.set()

    def set(self, begins="ACTIVE", refuses=None, hosts=("127.0.0.1",)):
        world = {"begins": begins, "refuses": refuses or {}, "hosts": hosts}
        (self.folder / "world.json").write_text(json.dumps(world))

    def set_states(self, state):
        for path in (self.folder / "tpus").iterdir():
            path.write_text(state)

    @property
    def tpus(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "tpus").iterdir())

    def calls(self, verb=None) -> list[list[str]]:
        calls = [json.loads(line) for line in (self.folder / "calls.jsonl").read_text().splitlines()]
        return [["gcloud", *call] for call in calls if verb is None or verb in call]


@pytest.fixture
def world(tmp_path, monkeypatch):
    world = World(tmp_path / "cloud")
    for name, text in (("gcloud", GCLOUD), ("run python", PYTHON)):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.format(python=sys.executable, folder=str(world.folder)))
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    for name in ("SECONDS_BETWEEN_LISTS", "SECONDS_BETWEEN_TRIES", "SECONDS_BETWEEN_LOOKS"):
        monkeypatch.setattr(tpu_vm, name, 0.05)
    return world


@pytest.fixture
def sweep(tmp_path):
    sweep = SweepDirectory(tmp_path / "share" / "It's $HOME; a sweep")  # a path that a shell would take apart
    sweep.open()
    yield sweep
    sweep.close()


def make(sweep, **flags) -> TpuVm:
    return TpuVm(**{**FLAGS, "python": str(sweep.path.parents[1] / "bin" / "run python"), **flags})


def opened(sweep, workers=None, **flags) -> TpuVm:
    executor = make(sweep, **flags)
    executor.open(sweep, workers)
    return executor


def trials(*values: str) -> list[Trial]:
    return [Trial(f"t{i}", {"ends": value} if value else {"model": "wait"}) for i, value in enumerate(values)]


def until(executor, condition) -> dict[str, Ended]:
    """Polls until the condition holds; what has ended meanwhile."""
    ended, give_up = {}, time.monotonic() + 30
    while True:
        ended |= executor.poll()
        if condition(ended):
            return ended
        assert time.monotonic() < give_up, (ended, executor.held())
        time.sleep(0.02)


def until_runs(executor, *jobs) -> None:
    """Until the runs of these jobs have said that they can be asked to stop."""
    until(executor, lambda _: all(executor.held().get(job.name) == "running" for job in jobs))
    until(executor, lambda _: all(job.log.stat().st_size for job in jobs))


def test_a_worker_runs_one_job_after_the_other_and_is_deleted(sweep, world):
    executor = opened(sweep)
    jobs = executor.jobs(trials("0", "3"))
    assert executor.room() == 1
    for job, status in zip(jobs, (0, 3)):
        executor.start([job])
        assert executor.held() == {job.name: "queued"} and executor.room() == 0
        assert until(executor, lambda ended: ended) == {job.name: Ended(status)}
        assert json.loads(job.log.read_text()) == list(job.command[1:])
    assert len(world.calls("create")) == 1 and len(world.tpus) == 1
    executor.close()
    assert world.tpus == []


def test_what_is_previewed_is_what_is_run(sweep, world, tmp_path):
    (tmp_path / "mount.sh").write_text("mount nfs:/share /mnt\n")
    flags = {"spot": True, "internal": True, "project": "p", "startup_script": str(tmp_path / "mount.sh")}
    job = train_job(sweep, trials("0")[0])
    previewed = [shlex.split(line, comments=True) for line in make(sweep, **flags).preview([job])]
    executor = opened(sweep, **flags)
    assert executor.commands([job]) == previewed[1:-1]
    executor.start([job])
    until(executor, lambda ended: ended)
    executor.close()
    run = world.calls()
    assert [command for command in run if "list" not in command] == previewed[1:]
    assert all(command in (previewed[0], *previewed[1:]) for command in run)
    create = previewed[1]
    name = create[create.index("create") + 1]
    assert set(create) >= {
        f"--node-id={name}",
        "--zone=us-west4-a",
        "--project=p",
        "--accelerator-type=v5litepod-4",
        "--runtime-version=v2-alpha-tpuv5-lite",
        f"--metadata-from-file=startup-script={tmp_path / 'mount.sh'}",
        "--spot",
        "--internal-ips",
    }


@pytest.mark.parametrize("value", ["a b  c", "it's", '"$(touch x)" `id`', "a;b|c&d > e", "(64,64)", "-n\\", "*~#!"])
def test_values_reach_the_command_as_they_are(sweep, world, value):
    executor = opened(sweep)
    (job,) = executor.jobs([Trial("t", {"ends": "0", "model": value})])
    executor.start([job])
    until(executor, lambda ended: ended)
    executor.close()
    assert f"--model={value}" in json.loads(job.log.read_text())


def test_several_workers(sweep, world):
    executor = opened(sweep, workers=2)
    jobs = executor.jobs(trials("", ""))
    executor.start(jobs)
    assert executor.room() == 0 and len(world.tpus) == 2
    until_runs(executor, *jobs)
    executor.stop([jobs[0].name])
    assert until(executor, lambda ended: ended) == {jobs[0].name: Ended(75)}  # it has saved
    executor.stop()
    assert until(executor, lambda ended: ended) == {jobs[1].name: Ended(75)}
    executor.close()
    assert world.tpus == []


def test_it_waits_for_capacity(sweep, world):
    world.set(begins="WAITING_FOR_RESOURCES")
    executor = opened(sweep)
    (job,) = executor.jobs(trials(""))
    executor.start([job])
    until(executor, lambda _: len(world.calls("list")) > 3)
    assert executor.held() == {job.name: "queued"} and not world.calls("ssh")
    executor.stop()
    assert executor.poll() == {job.name: Ended(None, "it had not begun")}
    executor.close()
    assert world.tpus == []


@pytest.mark.parametrize("state, told", [("SUSPENDED", "SUSPENDED no capacity"), (None, "GONE")])
def test_a_preempted_worker_is_requested_anew(sweep, world, state, told):
    executor = opened(sweep)
    (job,) = executor.jobs(trials(""))
    executor.start([job])
    until_runs(executor, job)
    (first,) = world.tpus
    if state:
        world.set_states(state)
    else:
        (world.folder / "tpus" / first).unlink()
    assert until(executor, lambda ended: ended) == {job.name: Ended(None, told)}
    folder = sweep.path / "tpu_vm" / "jobs" / job.name
    (folder / "stop").touch()  # for the process here, which no host took along
    until(executor, lambda _: (folder / "exit.0").exists())
    executor.start(executor.jobs(trials("0")))
    assert until(executor, lambda ended: ended) == {job.name: Ended(0)}
    executor.close()
    assert len(world.calls("create")) == 2 and world.tpus == []


def test_what_cannot_be_had_is_a_failure(sweep, world):
    world.set(begins="FAILED")
    executor = opened(sweep)
    executor.start(executor.jobs(trials("0")))
    assert until(executor, lambda ended: ended) == {"t0": Ended(1, "FAILED no capacity")}
    executor.close()


def test_the_next_command_goes_on(sweep, world):
    first = opened(sweep)
    (job,) = first.jobs(trials(""))
    first.start([job])
    until_runs(first, job)
    (tpu,) = world.tpus
    stray = tpu[: tpu.rindex("-") + 1] + "99"  # of a command that was killed before it could note it
    foreign = "jaxdl-another-0123abcd-1"
    for name in (stray, foreign):
        (world.folder / "tpus" / name).write_text("ACTIVE")
    second = opened(sweep)  # the first was killed
    assert second.held() == {job.name: "running"} and second.room() == 0
    second.stop()
    assert until(second, lambda ended: ended and stray not in world.tpus) == {job.name: Ended(75)}
    second.close()
    assert len(world.calls("create")) == 1 and world.tpus == [foreign]


def test_a_job_without_its_share_is_told_after_the_time_to_set_up(sweep, world, monkeypatch):
    executor = opened(sweep, directory="/no/such/clone")
    executor.start(executor.jobs(trials("0")))
    until(executor, lambda _: len(world.calls("ssh")) > 1)  # tried again: the host may still be setting up
    monkeypatch.setattr(time, "monotonic", lambda clock=time.monotonic: clock() + 3600)
    (ended,) = until(executor, lambda ended: ended).values()
    assert ended.status == 1 and "/no/such/clone" in ended.told
    executor.close()
    assert world.tpus == []


def test_gcloud_that_fails_for_a_while_is_no_end(sweep, world):
    executor = opened(sweep)
    (job,) = executor.jobs(trials(""))
    executor.start([job])
    until_runs(executor, job)
    world.set(refuses={"list": "ERROR: 503"})
    lists = len(world.calls("list"))
    until(executor, lambda _: len(world.calls("list")) > lists + 2)
    assert executor.held() == {job.name: "running"}
    world.set()
    executor.stop()
    until(executor, lambda ended: ended)
    executor.close()


def test_a_silent_host_is_lost(sweep, world, monkeypatch):
    executor = opened(sweep)
    (job,) = executor.jobs(trials(""))
    executor.start([job])
    until_runs(executor, job)
    monkeypatch.setattr(tpu_vm, "SECONDS_SILENT", -1)
    (ended,) = until(executor, lambda ended: ended).values()
    assert ended.status is None and "no sign of life" in ended.told
    (sweep.path / "tpu_vm" / "jobs" / job.name / "stop").touch()
    executor.close()
    assert world.tpus == []


def test_an_idle_worker_does_not_stand_for_ever(sweep, world, monkeypatch):
    executor = opened(sweep)
    executor.start(executor.jobs(trials("0")))
    until(executor, lambda ended: ended)
    monkeypatch.setattr(tpu_vm, "SECONDS_IDLE", 0)
    until(executor, lambda _: world.tpus == [])
    executor.close()


def test_a_worker_that_cannot_be_deleted_is_told(sweep, world, capsys):
    executor = opened(sweep)
    executor.start(executor.jobs(trials("0")))
    until(executor, lambda ended: ended)
    world.set(refuses={"delete": "ERROR: 500"})
    executor.close()
    told = capsys.readouterr().err
    assert f"{world.tpus[0]} may still stand, and cost: gcloud compute tpus queued-resources delete" in told


# What is missing.


@pytest.mark.parametrize(
    "flags, told",
    [
        ({"zone": ""}, "--tpu_vm.zone="),
        ({"accelerator_type": ""}, "--tpu_vm.accelerator_type="),
        ({"runtime_version": ""}, "--tpu_vm.runtime_version="),
        ({"directory": ""}, "--tpu_vm.directory="),
        ({"spot": True, "reserved": True}, "exclude each other"),
        ({"startup_script": "/no/such/file"}, "expected a file"),
    ],
)
def test_wrong_flags_are_told(sweep, world, flags, told):
    with pytest.raises(InputError, match=told):
        opened(sweep, **flags)
    with pytest.raises(InputError, match=told):
        make(sweep, **flags).preview([train_job(sweep, trials("0")[0])])


def test_a_bucket_is_no_path(world, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="a bucket is no path; mount it"):
        TpuVm(**FLAGS).open(SweepDirectory("gs://bucket/sweep"), None)


@pytest.mark.parametrize(
    "answer, told",
    [
        (
            "ERROR: (gcloud.x) You do not currently have an active account selected.\nPlease run: ...",
            "gcloud auth login",
        ),
        ("ERROR: PERMISSION_DENIED: Permission 'tpu.list' denied", "no permission; .*roles/tpu.admin"),
        ("ERROR: (gcloud.x) The required property [project] is not currently set.", "--tpu_vm.project=PROJECT"),
        ("ERROR: Cloud TPU API has not been used in project 1 before", "gcloud services enable"),
        ("ERROR: Invalid zone\nmore of it", r"gcloud failed \(ERROR: Invalid zone\)\.$"),
    ],
)
def test_gcloud_that_cannot_be_used_is_told_in_one_line(sweep, world, answer, told):
    world.set(refuses={"list": answer})
    with pytest.raises(InputError, match=told) as error:
        opened(sweep)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("answer, kind", [("ERROR: RESOURCE_EXHAUSTED: Quota limit", InputError), ("500", RunError)])
def test_a_request_that_is_refused_is_told_and_leaves_nothing(sweep, world, answer, kind):
    executor = opened(sweep)
    world.set(refuses={"create": answer})
    with pytest.raises(kind, match=answer):
        executor.start(executor.jobs(trials("0")))
    executor.close()
    assert not executor.held() and world.tpus == []


def test_without_gcloud_it_is_told_what_to_install(sweep, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match="https://cloud.google.com/sdk"):
        TpuVm(**FLAGS).open(sweep, None)


# On a host.


def host_job(tmp_path, code: str, hosts=("10.0.0.1", "10.0.0.2")) -> dict:
    return {"command": [sys.executable, "-c", code], "log": str(tmp_path / "t.log"), "hosts": list(hosts)}


def test_a_host_tells_jax_who_it_is(tmp_path, capfd):
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    code = f"import os; print(*map(os.environ.get, {names})); raise SystemExit(7)"
    assert tpu_host.stay(tmp_path, host_job(tmp_path, code), 1) == 7
    assert capfd.readouterr().out == "10.0.0.1:8476 2 1\n"
    assert (tmp_path / "exit.1").read_text() == "7"


def test_a_host_finds_itself(monkeypatch):
    assert tpu_host.find_index(["127.0.0.1", "127.0.0.2"]) == 0
    with pytest.raises(InputError, match="has the address .*; expected one of"):
        tpu_host.find_index(["127.0.0.2", "127.0.0.3"])


def test_logs_of_hosts_do_not_mix(tmp_path):
    job = host_job(tmp_path, "")
    assert [tpu_host.log_of(job, i).name for i in (0, 1)] == ["t.log", "t.host1.log"]


def test_a_job_begins_once_on_a_host(tmp_path):
    job = host_job(tmp_path, "print('begun')", hosts=["127.0.0.1"])
    (tmp_path / "job.json").write_text(json.dumps(job))
    for _ in range(2):
        assert tpu_host.main([str(tmp_path)]) == 0
    give_up = time.monotonic() + 20
    while not (tmp_path / "exit.0").exists() and time.monotonic() < give_up:
        time.sleep(0.05)
    assert (tmp_path / "t.log").read_text() == "begun\n"


def test_a_program_that_is_not_there(tmp_path, capsys):
    job = host_job(tmp_path, "") | {"command": ["/no/such/python"]}
    assert tpu_host.stay(tmp_path, job, 0) == 127 and (tmp_path / "exit.0").read_text() == "127"
    assert "error: /no/such/python cannot be started" in capsys.readouterr().err


def test_a_share_that_is_not_mounted_is_told_in_one_line(tmp_path):
    command = [sys.executable, "-m", "launch.executors.tpu_host", str(tmp_path / "nothing")]
    run = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert run.returncode == 2 and run.stderr.count("\n") == 1 and "must be mounted there" in run.stderr
