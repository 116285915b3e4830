"""Says where a run hangs. A thread that sees no progress for long enough writes every thread's stack."""

import faulthandler
import os
import pathlib
import sys
import threading
import time


class Watchdog:
    """Watches what the run says it is doing; `beat` runs every few seconds as long as the process lives.

    Args:
      seconds: with no `at` call for so long the run counts as stalled; 0 never.
      report: where the stacks go, beside standard error.
      beat: called every `interval` seconds from the watching thread.
    """

    def __init__(self, seconds: float, report: pathlib.Path, beat=lambda: None, interval: float = 5.0):
        self._seconds, self._report, self._beat, self._interval = seconds, report, beat, interval
        self._what, self._since, self._told = "starting", time.monotonic(), False
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def at(self, what: str) -> None:
        """Says what the run is about to do. Cheap enough for every step."""
        self._what, self._since, self._told = what, time.monotonic(), False

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        interval = min(self._interval, self._seconds / 2) if self._seconds else self._interval
        while not self._done.wait(interval):
            try:
                self._beat()
            except Exception:  # a full disk is told by the run itself; the watcher must live on
                pass
            waited = time.monotonic() - self._since
            if self._seconds and waited > self._seconds and not self._told:
                self._told = True
                self._tell(waited)

    def _tell(self, waited: float) -> None:
        line = f"\nNo progress for {waited:.0f} s (process {os.getpid()}). The run is: {self._what}. "
        line += "The stacks of all threads:\n"
        sys.stderr.write(line)
        sys.stderr.flush()
        faulthandler.dump_traceback(file=sys.__stderr__, all_threads=True)
        try:
            with open(self._report, "a") as file:
                file.write(line)
                file.flush()
                faulthandler.dump_traceback(file=file, all_threads=True)
        except OSError:
            pass
