"""Runs as child processes of the sweep command, each with GPUs or cores of its own."""

import dataclasses
import os
import pathlib
import re
import subprocess
from collections.abc import Mapping, Sequence

from jaxdl.errors import InputError, RunError
from launch.executors import pinned
from launch.executors.base import Ended, Executor, Job, train_job
from launch.executors.forked import Forked
from launch.sweeps.directory import SweepDirectory
from launch.sweeps.plan import Trial


@dataclasses.dataclass(frozen=True)
class Local(Executor):
    """Child processes on this machine: as many as there are GPUs, without GPUs as there are cores.

    With fewer --workers each child gets an equal share of the GPUs (CUDA_VISIBLE_DEVICES) or cores (its affinity).
    A child is a session of its own, so that Ctrl-C reaches the sweep alone, which asks it to save. It is asked the
    same when the sweep dies (on Linux). A TPU belongs to one process: --workers=1.
    """

    def open(self, sweep: SweepDirectory, workers: int | None) -> None:
        object.__setattr__(self, "_state", _State(sweep, find_shares(workers)))

    def jobs(self, trials: Sequence[Trial]) -> list[Job]:
        return [train_job(self._state.sweep, trial) for trial in trials]

    def room(self) -> int:
        return len(self._state.free)

    def start(self, jobs: Sequence[Job]) -> None:
        state = self._state
        for job in jobs:
            share = state.free.pop(0)
            try:
                state.children[job.name] = self._start(job, share), share
            except OSError as error:
                raise RunError(f"trial {job.name} cannot be started: {error.strerror}.") from None

    def _start(self, job: Job, share: "Share") -> subprocess.Popen | Forked:
        with open(job.log, "ab") as log:
            return share.start(job.command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)

    def held(self) -> Mapping[str, str]:
        return dict.fromkeys(self._state.children, "running")

    def poll(self) -> dict[str, Ended]:
        state, ended = self._state, {}
        for name, (process, share) in list(state.children.items()):
            status = process.poll()
            if status is not None:
                del state.children[name]
                state.free.append(share)
                ended[name] = Ended(status, "out of memory?" if status == -9 else "")
        return ended

    def stop(self, names: Sequence[str] | None = None) -> None:
        for name in self._state.children if names is None else names:
            if name in self._state.children:
                self._state.children[name][0].terminate()

    def close(self) -> None:
        self.stop()
        for process, _ in self._state.children.values():
            process.wait()


@dataclasses.dataclass(frozen=True)
class Share:
    """Devices that one child has for itself: names of GPUs, or numbers of cores."""

    kind: str
    devices: tuple[str, ...]

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a process that sees these GPUs alone."""
        return {**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(self.devices)} if self.kind == "GPU" else {**os.environ}

    @property
    def cores(self) -> tuple[int, ...]:
        """The cores to which it is pinned; none for all."""
        return tuple(map(int, self.devices)) if self.kind == "core" and hasattr(os, "sched_setaffinity") else ()

    def start(self, command: Sequence[str], **pipes) -> subprocess.Popen:
        """Starts a child that sees these devices alone, and is asked to leave when this process dies."""
        command = pinned.bound(command, self.cores)
        return subprocess.Popen(command, env=self.environment, start_new_session=True, **pipes)


@dataclasses.dataclass
class _State:
    """What an open `Local` holds: the shares of devices that are free, and the children with theirs."""

    sweep: SweepDirectory
    free: list[Share]
    children: dict[str, tuple[subprocess.Popen | Forked, Share]] = dataclasses.field(default_factory=dict)


def find_shares(workers: int | None, flag: str = "workers") -> list[Share]:
    """This machine's GPUs, or else its cores, in equal shares for so many workers; None is one for each.

    Args:
      flag: by which the number was asked for.

    Raises:
      InputError: more workers than devices.
    """
    gpus, cores = find_gpus(), find_cores()
    devices, kind = (gpus, "GPU") if gpus else (cores, "core")
    workers = len(devices) if workers is None else workers
    if workers > len(devices):
        raise InputError(
            f"--{flag}={workers}: this machine lends {len(devices)} {kind}{'s' * (len(devices) != 1)}, and each "
            f"needs one; expected at most {len(devices)}."
        )
    share = len(devices) // workers
    return [Share(kind, tuple(devices[i * share : (i + 1) * share])) for i in range(workers)]


def find_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; JAX, which would hold them, is not asked.

    Raises:
      InputError: nvidia-smi hangs or fails, as a broken driver makes it.
    """
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms and not {"cuda", "gpu"} & set(platforms.split(",")):
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",")]
        return [] if names[0] in ("", "-1") else names
    if not any(pathlib.Path("/dev").glob("nvidia[0-9]*")):
        return []
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=True).stdout
    except FileNotFoundError:
        return []
    except (subprocess.SubprocessError, OSError) as error:
        raise InputError(
            f"`nvidia-smi -L` does not answer ({error}); name the GPUs with CUDA_VISIBLE_DEVICES, or use none with "
            "JAX_PLATFORMS=cpu."
        ) from None
    return parse_gpus(listed)


def parse_gpus(listed: str) -> list[str]:
    """The UUIDs in what `nvidia-smi -L` prints; of a GPU that is cut into MIG instances, those of its instances."""
    gpus: list[list[str]] = []
    for line in listed.splitlines():
        uuid = re.search(r"\(UUID: ([^)]+)\)", line)
        if uuid and line.startswith("GPU "):
            gpus.append([uuid[1]])
        elif uuid:
            gpus[-1].append(uuid[1])
    return [name for gpu in gpus for name in (gpu[1:] or gpu)]


def find_cores() -> list[str]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return [str(core) for core in sorted(os.sched_getaffinity(0))]
    return [str(core) for core in range(os.cpu_count() or 1)]
