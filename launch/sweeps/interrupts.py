"""How a sweep is asked to stop, and how it waits."""

import contextlib
import os
import select
import signal
import socket
import sys


class Interrupts:
    """SIGTERM and Ctrl-C ask the sweep to stop; a second Ctrl-C leaves at once.

    `status` is None until asked: then 75 or 130. Signals also end a `wait`, that of a child's end among them.
    """

    def __init__(self):
        self.status: int | None = None

    def __enter__(self) -> "Interrupts":
        self._ends = socket.socketpair()
        for end in self._ends:
            end.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(self._ends[1].fileno(), warn_on_full_buffer=False)
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
        self._previous = {number: signal.signal(number, self._handle) for number in numbers}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        for end in self._ends:
            end.close()

    def wait(self, seconds: float) -> None:
        """Waits so long, or until a signal comes."""
        with contextlib.suppress(BlockingIOError):
            while self._ends[0].recv(1000):  # of what an executor itself started and waited for meanwhile
                pass
        select.select([self._ends[0]], [], [], seconds)

    def _handle(self, number, frame) -> None:
        if number == signal.SIGCHLD:
            return
        if number == signal.SIGINT and self.status == 130:
            if sys.stdout.isatty():
                os.write(1, b"\x1b[?25h\n")  # the live table has hidden the cursor
            os._exit(130)
        self.status = 75 if number == signal.SIGTERM else 130
