"""Children that are forked from a server: what `subprocess.Popen` would do, without importing again."""

import os
import signal
import subprocess
import sys
import time

import pytest

from launch.executors.forked import Server

CHILD = """
import os, signal, sys, time
from jaxdl.errors import InputError
imported_by = os.getpid()

def main(argv):
    what = argv[0]
    print(what, *argv[1:], os.environ.get("COLOUR"), "GONE" in os.environ, flush=True)
    if what == "wrong":
        raise InputError("the input is wrong.")
    if what == "breaks":
        raise ValueError("it broke")
    if what == "cores":
        print(sorted(os.sched_getaffinity(0)), imported_by == os.getppid(), os.getsid(0) == os.getpid(), flush=True)
    if what == "waits":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
        print("pid", os.getpid(), flush=True)
        time.sleep(600)
    if what == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    return int(what) if what.isdigit() else 0
"""

SWEEP = """
import os, pathlib, sys, time
from launch.executors.forked import Server
server = Server("forked_child")
server.start(["waits"], os.environ, [], pathlib.Path(sys.argv[1]))
time.sleep(600)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "forked_child.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("GONE", "1")


@pytest.fixture
def server(module):
    server = Server("forked_child")
    yield server
    server.close()


@pytest.fixture
def start(server, tmp_path):
    environment = {**os.environ, "COLOUR": "green"}
    environment.pop("GONE")
    return lambda *arguments, cores=(): server.start(arguments, environment, cores, tmp_path / "log")


def wait_for(condition, seconds=60):
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.02)
    return found


def pid_in(log):
    lines = log.read_text().splitlines() if log.exists() else []
    return next((int(line.split()[1]) for line in lines if line.startswith("pid ")), None)


def gone(pid):
    """Whether a process has ended; one that waits to be reaped has."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_exit_statuses_and_what_is_written(start, tmp_path):
    expected = {"0": 0, "3": 3, "wrong": 2, "breaks": 1, "dies": -signal.SIGKILL}
    found = {}
    for what in expected:  # one after the other, as they have one log
        child = start(what, "a b", "c\n'd'")
        child.wait()
        found[what] = child.poll()
    assert found == expected
    log = (tmp_path / "log").read_text()
    assert log.count("a b c\n'd' green False") == 5  # arguments, and the environment that was given
    assert "error: the input is wrong." in log and "ValueError: it broke" in log


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux pins")
def test_it_is_pinned_a_session_of_its_own_and_imports_nothing_again(start, tmp_path):
    core = min(os.sched_getaffinity(0))
    start("cores", cores=[core]).wait()
    assert f"[{core}] True True" in (tmp_path / "log").read_text()


def test_who_waits_for_children_is_told_of_these(start):
    told = []
    before = signal.signal(signal.SIGCHLD, lambda *_: told.append(True))
    try:
        child = start("0")
        child.wait()
        assert wait_for(lambda: told)
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_child_is_asked_to_leave(start, tmp_path):
    child = start("waits")
    assert wait_for(lambda: pid_in(tmp_path / "log")) and child.poll() is None
    child.terminate()
    child.wait()
    assert child.poll() == 75


def test_a_log_that_cannot_be_opened_is_told(server, tmp_path):
    with pytest.raises(OSError):
        server.start(["0"], os.environ, [], tmp_path / "no" / "log")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's death")
def test_children_leave_when_the_server_dies(server, start, tmp_path):
    child = start("waits")
    pid = wait_for(lambda: pid_in(tmp_path / "log"))
    server._process.kill()
    wait_for(lambda: gone(pid))
    wait_for(lambda: child.poll() is not None)
    assert child.poll() == -signal.SIGKILL and not server.alive
    child.terminate()  # nothing to say it to
    with pytest.raises(OSError):
        start("0")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's death")
def test_children_leave_when_the_sweep_is_killed(module, tmp_path):
    sweep = subprocess.Popen([sys.executable, "-c", SWEEP, str(tmp_path / "log")])
    try:
        pid = wait_for(lambda: pid_in(tmp_path / "log"))
    finally:
        sweep.kill()
        sweep.wait()
    wait_for(lambda: gone(pid))


def test_nobody_waits_for_imports_that_are_not_needed(tmp_path, monkeypatch):
    (tmp_path / "slow_to_import.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    server = Server("slow_to_import")
    server.close()
    assert not server.alive
