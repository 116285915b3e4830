"""The local executor with children that take no time: what they may use, how they end, and whom they outlive."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from jaxdl.errors import InputError
from launch.executors import local
from launch.executors.base import Ended, Job
from launch.executors.local import Local, find_gpus, parse_gpus
from launch.sweeps.directory import SweepDirectory

ROOT = pathlib.Path(__file__).parents[2]

LISTED = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aaa)
  MIG 3g.20gb     Device  0: (UUID: MIG-one)
  MIG 3g.20gb     Device  1: (UUID: MIG-two)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-bbb)
"""


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    sweep = SweepDirectory(tmp_path / "sweep")
    sweep.open()
    yield sweep
    sweep.close()


def job(sweep, name, code):
    return Job(name, (name,), (sys.executable, "-c", code), sweep.log(name))


def wait_for_all(executor):
    """How every job ended."""
    ended = {}
    while executor.held():
        ended |= executor.poll()
        time.sleep(0.01)
    return ended


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system does not pin processes")
def test_children_get_a_share_of_the_cores_and_a_session_of_their_own(sweep, monkeypatch):
    cores = sorted(os.sched_getaffinity(0))
    executor = Local()
    executor.open(sweep, None)
    assert executor.room() == len(cores)
    code = "import os; print(*os.sched_getaffinity(0), os.getsid(0) == os.getpid())"
    executor.start([job(sweep, f"job{core}", code) for core in cores])
    assert executor.room() == 0 and set(executor.held().values()) == {"running"}
    assert set(wait_for_all(executor).values()) == {Ended(0)}
    said = [sweep.log(f"job{core}").read_text().split() for core in cores]
    assert sorted(int(core) for core, _ in said) == cores and {own for _, own in said} == {"True"}
    assert executor.room() == len(cores)


def test_fewer_workers_get_more_each(sweep, monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,5")
    executor = Local()
    executor.open(sweep, 2)
    code = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"
    executor.start([job(sweep, "one", code), job(sweep, "two", code)])
    wait_for_all(executor)
    assert sweep.log("one").read_text() == "0,1\n" and sweep.log("two").read_text() == "2,5\n"
    executor.start([job(sweep, "one", code)])  # again, with what is free: its log goes on
    wait_for_all(executor)
    assert sweep.log("one").read_text() in ("0,1\n0,1\n", "0,1\n2,5\n")


def test_more_workers_than_devices_are_refused(sweep, monkeypatch):
    monkeypatch.setattr(local, "find_cores", lambda: ["0", "1"])
    with pytest.raises(InputError, match="--workers=3: this machine lends 2 cores, .* expected at most 2"):
        Local().open(sweep, 3)
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aaa")
    with pytest.raises(InputError, match="1 GPU, .* expected at most 1"):
        Local().open(sweep, 2)


def test_gpus_are_those_that_the_process_may_use(monkeypatch):
    assert parse_gpus(LISTED) == ["MIG-one", "MIG-two", "GPU-bbb"]
    assert parse_gpus("No devices found.\n") == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 4")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert find_gpus() == []
    monkeypatch.setenv("JAX_PLATFORMS", "cuda,cpu")
    assert find_gpus() == ["3", "4"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert find_gpus() == []


def test_how_a_child_ended(sweep):
    executor = Local()
    executor.open(sweep, 1)
    for name, code, ended in (
        ("failed", "raise SystemExit(3)", Ended(3)),
        ("killed", "import os; os.kill(os.getpid(), 9)", Ended(-9, "out of memory?")),
        ("crashed", "import os; os.abort()", Ended(-signal.SIGABRT)),
    ):
        executor.start([job(sweep, name, code)])
        assert wait_for_all(executor) == {name: ended}


def test_children_are_asked_to_stop(sweep):
    executor = Local()
    executor.open(sweep, 1)
    code = (
        "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
        "print('ready', flush=True)\ntime.sleep(60)"
    )
    executor.start([job(sweep, "one", code)])
    while not sweep.log("one").exists() or "ready" not in sweep.log("one").read_text():
        time.sleep(0.01)
    executor.stop()
    assert wait_for_all(executor) == {"one": Ended(75)}
    executor.start([job(sweep, "two", code)])
    executor.close()  # waits
    assert executor.poll()["two"].status in (75, -signal.SIGTERM)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_children_are_asked_to_stop_when_their_parent_is_killed(sweep, tmp_path):
    child = f"import os, time; open({str(tmp_path / 'child')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    code = (
        "import sys, pathlib, time\n"
        "from launch.executors.local import Local\nfrom launch.executors.base import Job\n"
        "from launch.sweeps.directory import SweepDirectory\n"
        f"executor = Local()\nexecutor.open(SweepDirectory({str(sweep.path)!r}), 1)\n"
        f"executor.start([Job('a', ('a',), (sys.executable, '-c', {child!r}), pathlib.Path({os.devnull!r}))])\n"
        "time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    try:
        while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text():
            assert parent.poll() is None
            time.sleep(0.01)
    finally:
        parent.kill()
        parent.wait()
    status = pathlib.Path(f"/proc/{(tmp_path / 'child').read_text()}/status")
    give_up = time.monotonic() + 10
    while status.exists() and "State:\tZ" not in status.read_text():
        assert time.monotonic() < give_up
        time.sleep(0.01)
