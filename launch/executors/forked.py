"""Children that begin with everything imported: a server imports it once, and they are forked from it.

    python -m launch.executors.forked MODULE PARENT

is the server, a child of the process PARENT, with which it leaves. It has one thread and asks for no device, so that a
fork loses nothing. Each line of its input is a JSON list, ["start", ID, {"arguments", "environment", "cores", "log"}] or
["terminate", ID]; for each child that has ended it writes [ID, EXIT STATUS], and signals SIGCHLD to its parent. It leaves
when its input ends, and its children, as everybody's here, are asked to leave then.
"""

import contextlib
import gc
import importlib
import json
import os
import pathlib
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence

from launch import cli
from launch.executors import pinned


class Server:
    """The sweep's side: starts `python -m MODULE ARGUMENTS...` by forking, once MODULE is imported."""

    def __init__(self, module: str):
        self._process = subprocess.Popen(
            (sys.executable, "-m", "launch.executors.forked", module, str(os.getpid())),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        os.set_blocking(self._process.stdout.fileno(), False)
        self._ended: dict[int, int] = {}
        self._started = 0
        self._unread = b""

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def start(
        self, arguments: Sequence[str], environment: Mapping[str, str], cores: Sequence[int], log: pathlib.Path
    ) -> "Forked":
        """A child in this environment, pinned to these cores unless there are none, its output appended to the log.

        It is a session of its own. JAX read its own variables when the server imported it.

        Raises:
          OSError: the log cannot be opened, or the server is dead.
        """
        with open(log, "ab"):
            pass
        self._started += 1
        child = {"arguments": list(arguments), "environment": dict(environment), "cores": list(cores), "log": str(log)}
        self.ask("start", self._started, child)
        return Forked(self, self._started)

    def ask(self, *request) -> None:
        """Sends a request. Raises: BrokenPipeError, where the server is dead."""
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()

    def status(self, child: int) -> int | None:
        """The exit status of a child, negative for a signal; None while it runs. It dies with its server."""
        while child not in self._ended and (told := self._process.stdout.read(65536)):
            *lines, self._unread = (self._unread + told).split(b"\n")
            self._ended.update(map(json.loads, lines))
        return self._ended.get(child, None if self.alive else -signal.SIGKILL)

    def wait(self) -> None:
        """Waits until the server has something to tell."""
        select.select([self._process.stdout], [], [])

    def close(self) -> None:
        """Lets the server go, and what it may still be importing; its children have ended, or are asked to leave."""
        self._process.kill()
        with contextlib.suppress(BrokenPipeError):  # of what a dead server was not told any more
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


class Forked:
    """A child of the server; what can be asked of it is named as in `subprocess.Popen`."""

    def __init__(self, server: Server, number: int):
        self._server, self._number = server, number

    def poll(self) -> int | None:
        """The exit status, once it has ended; negative is the signal that killed it."""
        return self._server.status(self._number)

    def terminate(self) -> None:
        if self._server.alive:
            self._server.ask("terminate", self._number)

    def wait(self) -> None:
        while self.poll() is None:
            self._server.wait()


# The server's side.


def main(argv: Sequence[str]) -> None:
    """Imports, and then serves until its input ends; does not come back."""
    name, parent = argv[0], int(argv[1])
    pinned.bind(parent, [])
    # What importing makes stays: the garbage collector need not look through it again and again, now or later.
    gc.disable()
    module = importlib.import_module(name)
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    gc.enable()
    children: dict[int, int] = {}  # process id -> ID
    unread = b""
    wake, signalled = os.pipe()
    os.set_blocking(signalled, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
    while True:
        ready, _, _ = select.select([0, wake], [], [])
        if wake in ready:
            os.read(wake, 4096)
        for number, status in _reap(children):
            print(json.dumps([number, status]), flush=True)
            with contextlib.suppress(OSError):  # of a parent that is gone
                os.kill(parent, signal.SIGCHLD)  # who may wait for its children, is told of this one, too
        if 0 not in ready:
            continue
        told = os.read(0, 65536)
        if not told:
            os._exit(0)
        *lines, unread = (unread + told).split(b"\n")
        for what, number, *child in map(json.loads, lines):
            if what == "start":
                children[_fork(module, **child[0])] = number
            for process in [process for process, own in children.items() if own == number and what == "terminate"]:
                os.kill(process, signal.SIGTERM)


def _reap(children: dict[int, int]):
    while children:
        process, status = os.waitpid(-1, os.WNOHANG)
        if not process:
            return
        yield children.pop(process), os.waitstatus_to_exitcode(status)


def _fork(module, arguments: Sequence[str], environment: Mapping[str, str], cores: Sequence[int], log: str) -> int:
    """Gives the process id of a child that runs the module's `main`."""
    server = os.getpid()
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        os.environ.clear()
        os.environ.update(environment)
        pinned.bind(server, cores)
        for file, flags, streams in ((os.devnull, os.O_RDONLY, [0]), (log, os.O_WRONLY | os.O_APPEND, [1, 2])):
            opened = os.open(file, flags)
            for stream in streams:
                os.dup2(opened, stream)
        status = cli.status(module.main, arguments)
    except SystemExit as error:
        status = error.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status or 0)


if __name__ == "__main__":
    cli.main(main)
