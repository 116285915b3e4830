"""The record that a run leaves: its directory, held by one process at a time.

flags.txt, status.json, metrics.jsonl, environment.json, tensorboard/, plots/, samples/ (see README). `metrics.jsonl` is
a pure function of the run: it holds no times, a resumed run cuts it back to its checkpoint and continues it, and so it
ends the same line for line as one that was never interrupted. Times stand in status.json and TensorBoard.
"""

import contextlib
import errno
import fcntl
import json
import math
import os
import pathlib
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from jaxdl.errors import InputError, RunError

STATUS_SECONDS = 5.0
"""For which what status.json says of a run's progress stays, at least: to replace a file may take milliseconds."""

STOP = "stop"
"""The file that asks a run to save and end at its next evaluation or checkpoint; it holds the reason."""


class RunDirectory:
    """A run directory, opened for writing by the one process that holds it.

    In a run of several processes only the first writes; the others pass `writer=False` and every method that
    would write does nothing.
    """

    def __init__(self, path: str | os.PathLike, *, writer: bool = True, tensorboard: bool = True):
        self.path = pathlib.Path(path).expanduser().absolute()
        self.writer = writer
        self._write_events = tensorboard
        self._lock = None
        self._status_lock = threading.Lock()  # the watchdog's heartbeat writes, too
        self._status: dict[str, Any] = {}
        self._told = -STATUS_SECONDS  # when the progress was last written, on the monotonic clock
        self._tensorboard = None
        self._metrics = None

    # Holding the directory.

    def open(self) -> None:
        """Makes the directory and takes it. The lock is the kernel's, so a dead holder's is free at once.

        Raises:
          InputError: it cannot be written, is no run directory, or is held by a living process.
        """
        if not self.writer:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            names = {entry.name for entry in self.path.iterdir()}
            if names and not names & {"flags.txt", ".lock", STOP}:
                raise InputError(f"{self.path} is not empty and is no run directory; name another --workdir.")
            self._lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise InputError(f"--workdir={self.path} cannot be written: {error.strerror}.") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._lock, 200, 0).decode(errors="replace").strip() or "another process"
            os.close(self._lock)
            self._lock = None
            raise InputError(
                f"{self.path} is held by {holder}; wait for it, stop it, or name another --workdir."
            ) from None
        except OSError as error:
            raise InputError(f"{self.path} cannot be locked: {error.strerror}.") from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        self._status = read_json(self.path / "status.json") or {}

    def close(self) -> None:
        """Lets the directory go."""
        if self._tensorboard is not None:
            with contextlib.suppress(OSError):  # of a full disk, which the run has told already
                self._tensorboard.close()
            self._tensorboard = None
        self._close_metrics()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # stop

    def asked_to_stop(self) -> str | None:
        """The reason in the file `stop`, by which anyone who can write here ends a run for good; None without it."""
        try:
            return (self.path / STOP).read_text(encoding="utf-8").strip() or "no reason given"
        except FileNotFoundError:
            return None

    # flags.txt

    def check_flags(
        self, ours: Mapping[str, str], changeable: set[str], defaults: Mapping[str, str] | None = None
    ) -> list[str]:
        """Compares with the flags that are there already; gives one line for each change that may be made.

        A flag that is not there, as the run is of a version before it, may be added at its default: that is what runs
        without it do.

        Raises:
          InputError: flags that make another run of this; the differences are told.
        """
        path = self.path / "flags.txt"
        if not path.exists():
            return []
        theirs = read_flags(path)
        changed = [name for name in sorted({*ours, *theirs}) if ours.get(name) != theirs.get(name)]
        told = {
            name: f"--{name}={theirs.get(name, '(not there)')} -> {ours.get(name, '(not there)')}" for name in changed
        }
        added = {name for name in changed if name not in theirs and ours[name] == (defaults or {}).get(name)}
        refused = [told[name] for name in changed if name not in changeable | added]
        if refused:
            raise InputError(
                f"{self.path} is a run with other flags: {'; '.join(refused)}. "
                f"Name another --workdir, or continue this one with --flagfile={path}."
            )
        return list(told.values())

    def write_flags(self, ours: Mapping[str, str], comment: str) -> None:
        """flags.txt: `--flagfile=WORKDIR/flags.txt` repeats the run."""
        lines = [f"# {line}" for line in comment.splitlines()] + [f"--{name}={value}" for name, value in ours.items()]
        self._write("flags.txt", "\n".join(lines) + "\n")

    # status.json, environment.json

    def status(self, **changes) -> None:
        """Changes fields of status.json, and its heartbeat (seconds since the epoch)."""
        with self._status_lock:
            self._status = {**self._status, **changes, "heartbeat": round(time.time(), 3)}
            self._write("status.json", json.dumps(self._status, indent=1) + "\n")

    def progress(self, **changes) -> None:
        """Changes fields of status.json that move on and on.

        They are written at once, or, where that was done a moment ago, with the next `status` or heartbeat.
        """
        if time.monotonic() - self._told >= STATUS_SECONDS:
            self._told = time.monotonic()
            self.status(**changes)
        else:
            with self._status_lock:
                self._status = {**self._status, **changes}

    def read_status(self) -> dict[str, Any]:
        """What status.json says, or will with the next heartbeat."""
        return dict(self._status)

    def heartbeat(self) -> None:
        """Says in status.json that the process lives."""
        if self._status.get("state") == "running":
            self.status()

    def environment(self, **values) -> None:
        """environment.json: versions, devices, parameters, FLOPs."""
        self._write("environment.json", json.dumps(values, indent=1) + "\n")

    # metrics.jsonl and TensorBoard

    def rewind(self, step: int) -> None:
        """Cuts metrics.jsonl back to lines of at most `step`, and a torn last line away."""
        if not self.writer:
            return
        path = self.path / "metrics.jsonl"
        if path.exists():
            kept = [record for record in read_metrics(self.path) if record["step"] <= step]
            self._write("metrics.jsonl", "".join(_json_line(record) for record in kept))
        self._close_metrics()  # the file that was there before
        if not self._write_events:
            return
        SummaryWriter = import_summary_writer()
        with guard_disk(self.path):
            if self._tensorboard is not None:
                self._tensorboard.close()
            self._tensorboard = SummaryWriter(str(self.path / "tensorboard"), purge_step=step + 1, flush_secs=30)

    def metrics(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        """Appends one line to metrics.jsonl, whole or not at all, and its scalars to TensorBoard."""
        if not self.writer:
            return
        line = _json_line({"step": step, "split": split, **values})
        with guard_disk(self.path):
            if self._metrics is None:
                self._metrics = open(self.path / "metrics.jsonl", "ab", buffering=0)
            self._metrics.write(line.encode())
        self.scalars(step, split, values)

    def scalars(self, step: int, prefix: str, values: Mapping[str, Any]) -> None:
        """Scalars for TensorBoard alone: those that depend on the machine."""
        if self._tensorboard is None:
            return
        from tensorboardX.proto.summary_pb2 import Summary

        found = [
            Summary.Value(tag=f"{prefix}/{name}", simple_value=value)
            for name, value in values.items()
            if isinstance(value, (int, float))
        ]
        self._tensorboard.file_writer.add_summary(Summary(value=found), step)  # in a fifth of add_scalar's time

    def figure(self, name: str, figure, step: int) -> None:
        """A Matplotlib figure as plots/NAME.png and as a TensorBoard image."""
        if not self.writer:
            return
        from jaxdl import plots  # Matplotlib is slow to import and only wanted at the end

        with guard_disk(self.path):
            (self.path / "plots").mkdir(exist_ok=True)
            (self.path / "plots" / f"{name}.png").write_bytes(plots.to_png(figure))
            if self._tensorboard is not None:
                self._tensorboard.add_image(name, plots.to_array(figure), step, dataformats="HWC")

    def sample(self, name: str, content: Any, step: int) -> None:
        """What a model generated: a text as samples/NAME.txt, a figure as samples/NAME.png; both for TensorBoard."""
        if not self.writer:
            return
        with guard_disk(self.path):
            (self.path / "samples").mkdir(exist_ok=True)
            if isinstance(content, str):
                (self.path / "samples" / f"{name}.txt").write_text(content, encoding="utf-8")
                if self._tensorboard is not None:
                    self._tensorboard.add_text(f"samples/{name}", f"```\n{content}\n```", step)
                return
            from jaxdl import plots

            (self.path / "samples" / f"{name}.png").write_bytes(plots.to_png(content))
            if self._tensorboard is not None:
                self._tensorboard.add_image(f"samples/{name}", plots.to_array(content), step, dataformats="HWC")

    def file(self, name: str, text: str) -> None:
        """A file of the directory, whole."""
        self._write(name, text)

    def _close_metrics(self) -> None:
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None

    def _write(self, name: str, text: str) -> None:
        if self.writer:
            replace_file(self.path / name, text)


def import_summary_writer():
    """tensorboardX's SummaryWriter; only a run writes events, so nothing else imports it.

    Where PyTorch is installed tensorboardX imports it, which takes seconds, for tensors that nobody gives it here.
    """
    hidden = sys.modules.setdefault("torch", None) is None  # as if it were not installed
    try:
        from tensorboardX import SummaryWriter
    finally:
        if hidden:
            del sys.modules["torch"]
    return SummaryWriter


def replace_file(path: pathlib.Path, content: str | bytes) -> None:
    """Writes a file whole: a reader, or a crash, finds the old one or the new one."""
    with guard_disk(path.parent):
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)


@contextlib.contextmanager
def guard_disk(path: pathlib.Path) -> Iterator[None]:
    """Turns what a full or failing disk raises into one line."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.EFBIG):
            raise RunError(f"{path} cannot be written: {error.strerror}. What was saved before is whole.") from error
        raise


def read_json(path: pathlib.Path) -> Any:
    """The JSON in a file, or None where there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def read_flags(path: pathlib.Path) -> dict[str, str]:
    """The flags of a flags.txt by name."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    pairs = [line[2:].partition("=") for line in lines if line.startswith("--")]
    return {name: value for name, _, value in pairs}


def read_metrics(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The lines of a run directory's metrics.jsonl; a torn last line, of a run that was killed, is left out."""
    file = pathlib.Path(path) / "metrics.jsonl"
    records = []
    if file.exists():
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return records


def _json_line(record: Mapping[str, Any]) -> str:
    return json.dumps({name: _plain(value) for name, value in record.items()}) + "\n"


def _plain(value):
    """JSON has no NaN and no infinity: they are written as null, as strict readers need."""
    if hasattr(value, "tolist"):  # an array, or a number of NumPy's: it is not imported for what else reads records
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
