"""A real Slurm on this machine for tests: a controller, two nodes and munge, all of it under one folder.

    python -m tests.launch.slurm_cluster        starts one and says how to use it, until Ctrl-C

It needs the programs of Debian's `slurm-wlm` and `munge`, and to be root. Its intervals are short, so that a lost
node is found within half a minute, and a job that was put back starts again after some seconds.
"""

import contextlib
import os
import pathlib
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from launch.executors import pinned

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue")
SBIN = ":/usr/sbin:/usr/local/sbin:/sbin"

# A job that was requeued starts again after cred_expire; what ran before must have ended by then, so after KillWait.
CONFIG = """\
ClusterName=jaxdl
SlurmctldHost=localhost
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=12
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
MailProg=/bin/true
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,sched_min_interval=100000
SlurmdParameters=config_overrides
SlurmdTimeout=5
MinJobAge=10
KillWait=8
MaxArraySize=64
ReturnToService=2
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why no cluster can be started here; None where one can."""
    absent = [name for name in PROGRAMS if _find(name) is None]
    if absent:
        return f"there is no {', '.join(absent)}: apt-get install slurm-wlm munge"
    return None if os.geteuid() == 0 else "Slurm's daemons want to be started by root"


class Cluster:
    """A cluster that runs. Its commands are `run`; `nodes` are the names of its two nodes of one job each.

    The first node is named as this machine, so that processes of a job find each other by its name.
    """

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        host = socket.gethostname().split(".")[0]
        self.nodes = (host, f"{host}-two")
        self.config = folder / "slurm.conf"
        self._daemons: dict[str, subprocess.Popen] = {}

    def start(self) -> None:
        """Starts everything, and waits until both nodes are there."""
        (self.folder / "state").mkdir()
        (self.folder / "munge.key").write_bytes(secrets.token_bytes(128))
        (self.folder / "munge.key").chmod(0o600)
        ports = _free_ports(1 + len(self.nodes))
        nodes = [
            f"NodeName={name} NodeHostName={name} NodeAddr=127.0.0.1 Port={port} CPUs=2"
            for name, port in zip(self.nodes, ports[1:])
        ]
        self.config.write_text(CONFIG.format(folder=self.folder, port=ports[0], nodes="\n".join(nodes)))
        names = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        munge = [f"--{option}={self.folder}/munge.{name}" for option, name in names.items()]
        self._daemon("munged", "--foreground", "--force", *munge)
        _wait_for((self.folder / "munge.socket").exists)
        self._daemon("slurmctld", "-D", "-c")
        for name in self.nodes:
            self.start_node(name)
        _wait_for(lambda: self.run("sinfo", "--noheader", "--format=%T").split() == ["idle"])

    def stop(self) -> None:
        """Ends the jobs and all daemons."""
        with contextlib.suppress(subprocess.CalledProcessError):
            self.run("scancel", f"--user={os.getuid()}")
            _wait_for(lambda: not self.run("squeue", "--noheader"))
        for process in reversed(self._daemons.values()):
            process.terminate()
            process.wait()

    def run(self, *command: str) -> str:
        """What a command of Slurm prints."""
        environment = {**os.environ, "SLURM_CONF": str(self.config)}
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()

    def start_node(self, name: str) -> None:
        """Starts a node, or starts it again."""
        self._daemon("slurmd", "-D", "-N", name)

    def stop_node(self, name: str, *, kill: bool = False) -> None:
        """Stops a node's daemon, which leaves its jobs running unseen; `kill` ends these, too, as a power cut does."""
        process = self._daemons.pop(f"slurmd {name}")
        process.kill()
        process.wait()
        if kill:
            for number in self._processes_of(name):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)

    def _processes_of(self, name: str) -> list[int]:
        """The processes of a node's jobs, and those of Slurm that watch over them."""
        marks = {f"SLURMD_NODENAME={name}".encode(), f"SLURM_CONF={self.config}".encode()}
        found = set()
        for path in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, IndexError):
                if marks <= set((path / "environ").read_bytes().split(b"\0")):
                    parent = int((path / "stat").read_text().rpartition(") ")[2].split()[1])
                    found.add(int(path.name))
                    if b"slurmstepd" in (path.parent / str(parent) / "cmdline").read_bytes():
                        found.add(parent)
        return sorted(found)

    def _daemon(self, program: str, *arguments: str) -> None:
        name = program if program != "slurmd" else f"slurmd {arguments[-1]}"
        with open(self.folder / f"{name.replace(' ', '-')}.out", "ab") as output:
            until_we_die = [sys.executable, "-S", pinned.__file__, str(os.getpid()), "-"]
            self._daemons[name] = subprocess.Popen(
                [*until_we_die, _find(program), *arguments],
                env={**os.environ, "SLURM_CONF": str(self.config)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )


@contextlib.contextmanager
def running() -> Iterator[Cluster]:
    """A cluster in a temporary folder, for the time of a `with`."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="slurm-"))  # short: the path of a socket has 107 characters
    folder.chmod(0o755)
    cluster = Cluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder)


def _find(program: str) -> str | None:
    return shutil.which(program, path=os.environ.get("PATH", "") + SBIN)


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _wait_for(condition, seconds: float = 30) -> None:
    give_up = time.monotonic() + seconds
    while True:
        with contextlib.suppress(subprocess.CalledProcessError):
            if condition():
                return
        if time.monotonic() > give_up:
            raise TimeoutError("the cluster does not come up or down; its logs are in its folder")
        time.sleep(0.1)


if __name__ == "__main__":
    with running() as started, contextlib.suppress(KeyboardInterrupt):
        print(f"export SLURM_CONF={started.config}\nnodes: {', '.join(started.nodes)}; Ctrl-C ends it", flush=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        signal.pause()
