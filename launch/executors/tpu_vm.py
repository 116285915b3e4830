"""Runs on Cloud TPUs through gcloud: queued resources as workers, each with one job at a time on all of its hosts.

A worker is requested when a job has none, used again by the next job, requested anew when it was preempted, and
deleted when there is no job for it. gcloud starts jobs and lists the resources; all else goes through the share on
which the sweep directory lies (`launch.executors.tpu_host`), so that a job needs no connection while it runs.

    SWEEP/tpu_vm/tpus.json     the workers, and their jobs
    SWEEP/tpu_vm/jobs/NAME/    what a job's hosts read and write
"""

import concurrent.futures
import dataclasses
import hashlib
import json
import pathlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from jaxdl import config
from jaxdl.errors import InputError, RunError
from jaxdl.train.record import guard_disk, read_json, replace_file
from jaxdl.types import PositiveInt
from launch.executors.base import Ended, Executor, Job, train_job
from launch.sweeps.directory import SweepDirectory
from launch.sweeps.plan import Trial

SECONDS_BETWEEN_LISTS = 30.0
SECONDS_BETWEEN_TRIES = 20.0
SECONDS_BETWEEN_LOOKS = 2.0
SECONDS_IDLE = 120.0  # for which a worker without a job is kept
SECONDS_SILENT = 900.0  # after which a host that gives no sign of life is lost
SECONDS_A_COMMAND = 600.0

LOST = ("SUSPENDING", "SUSPENDED", "FAILED", "DELETING", "GONE")
"""States of a queued resource that has no TPU any more; GONE is what is not listed."""

HINTS = {
    r"active account|auth login|reauth|invalid_grant": "gcloud is not logged in; `gcloud auth login`",
    r"property \[(core/)?project\]|valid project": "which project? --tpu_vm.project=PROJECT",
    r"SERVICE_DISABLED|has not been used|API .* not enabled": (
        "the project does not use Cloud TPU yet; `gcloud services enable tpu.googleapis.com`"
    ),
    r"PERMISSION_DENIED|permission": "no permission; the account needs roles/tpu.admin in the project",
    r"RESOURCE_EXHAUSTED|quota": "no quota for this accelerator in this zone; ask for it, or name another zone",
}
"""What to do about what gcloud says."""


@dataclasses.dataclass(frozen=True)
class TpuVm(Executor):
    """Cloud TPU VMs and pods, requested as queued resources through gcloud; --workers says how many, one if none.

    The sweep directory must lie on a share that is mounted at the same path here and on every TPU host: Filestore or
    another NFS, or a bucket through gcsfuse; a startup script can mount it. gs:// itself is no path. TPUs cost as
    long as they stand: the sweep deletes its own when it ends, or is stopped with Ctrl-C.

    Attributes:
      zone: the zone of the TPUs: us-west4-a.
      project: the project; empty is gcloud's own.
      accelerator_type: the TPU of one trial: v5litepod-4, or v5litepod-16 with several hosts.
      runtime_version: the software of its hosts: v2-alpha-tpuv5-lite.
      directory: where jaxdl's repository stands on the hosts: on the share, or where the startup script puts it.
      python: the Python interpreter on the hosts, with jaxdl's requirements and jax[tpu].
      startup_script: a shell script, here, that each host runs when it is created.
      setup_minutes: how long that may take before a trial must have begun.
      spot: take Spot capacity, which is cheaper and may be preempted.
      reserved: take from a reservation.
      valid_until: how long a request may wait for capacity: 6h; empty is for ever.
      network: the network of the hosts.
      subnetwork: its subnetwork.
      internal: give the hosts internal addresses alone, and reach them by these.
      service_account: the account that the hosts act for.
    """

    zone: str = ""
    project: str = ""
    accelerator_type: str = ""
    runtime_version: str = ""
    directory: str = ""
    python: str = "python3"
    startup_script: str = ""
    setup_minutes: PositiveInt = 15
    spot: bool = False
    reserved: bool = False
    valid_until: str = ""
    network: str = ""
    subnetwork: str = ""
    internal: bool = False
    service_account: str = ""

    def open(self, sweep: SweepDirectory, workers: int | None) -> None:
        self.check(sweep.path)
        if shutil.which("gcloud") is None:
            raise InputError("--executor=tpu_vm needs gcloud: https://cloud.google.com/sdk/docs/install.")
        listed = _run(self._list())
        if listed.returncode:
            raise InputError(_advice(listed.stderr))
        remembered = _remembered(sweep.path)
        state = _State(sweep, workers or 1, remembered["next"])
        states = self._states(listed.stdout, sweep.path)
        for name, (job, begun) in remembered["tpus"].items():
            state.tpus[name] = _Tpu(name, job, begun, *states.get(name, ("GONE", "")))
        object.__setattr__(self, "_state", state)

    def check(self, path: pathlib.Path) -> None:
        """Raises: InputError, for flags that are missing, and a sweep directory `path` that is none."""
        examples = {
            "zone": "us-west4-a",
            "accelerator_type": "v5litepod-4",
            "runtime_version": "v2-alpha-tpuv5-lite",
            "directory": "/mnt/share/jaxdl",
        }
        for name, example in examples.items():
            if not getattr(self, name):
                raise InputError(f"--executor=tpu_vm needs --tpu_vm.{name}={example}.")
        if "gs:" in path.parts:
            raise InputError(
                f"--workdir={path}: a bucket is no path; mount it with gcsfuse, or take Filestore, here and on the "
                "TPU hosts, and name the directory there."
            )
        if self.spot and self.reserved:
            raise InputError("--tpu_vm.spot and --tpu_vm.reserved exclude each other; give one.")
        script = self.startup_script
        if script and (not pathlib.Path(script).is_file() or re.search("[,=]", script)):
            raise InputError(f"--tpu_vm.startup_script={script}: expected a file, without , and = in its path.")

    def jobs(self, trials: Sequence[Trial]) -> list[Job]:
        return [train_job(self._state.sweep, trial) for trial in trials]

    def room(self) -> int:
        return self._state.workers - len(self.held())

    def commands(self, jobs: Sequence[Job]) -> list[list[str]]:
        """The commands that place jobs: what creates workers for them, and what begins each on all hosts."""
        placed = self._place(jobs)
        return [command for each in placed for command in (each.create, each.describe, each.begin) if command]

    def preview(self, jobs: Sequence[Job]) -> list[str]:
        """All that gcloud would be asked, for one worker after the other. Asks it nothing."""
        for job in jobs[:1]:
            self.check(_sweep_path(job))
        created = dict.fromkeys(each.tpu for each in self._place(jobs) if each.create)
        watch = f"{config.quote_command(self._list())}  # every {SECONDS_BETWEEN_LISTS:.0f} seconds"
        deletes = [config.quote_command(self._delete(name)) for name in created]
        return [watch, *(config.quote_command(command) for command in self.commands(jobs)), *deletes]

    def start(self, jobs: Sequence[Job]) -> None:
        state, creating = self._state, {}
        for each in self._place(jobs):
            folder = _job_folder(each.job)
            with guard_disk(folder):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
                _write_job(folder, [self.python, *each.job.command[1:]], each.job.log, [])
            if each.create:
                state.tpus[each.tpu] = _Tpu(each.tpu)
                state.next += 1
            tpu = state.tpus[each.tpu]
            tpu.job, tpu.begun, tpu.ready, tpu.next_try = each.job.name, False, None, 0.0
            if each.create:  # remembered before it is asked for: whatever happens, somebody deletes it
                self._save()
                creating[each.tpu] = state.pool.submit(_run, each.create)
        self._save()
        refused = {name: call.result() for name, call in creating.items() if call.result().returncode}
        for name in refused:
            self._drop(state.tpus[name])
        for answer in refused.values():
            advised = _advice(answer.stderr)
            raise InputError(advised) if _hint(answer.stderr) else RunError(advised)

    def held(self) -> Mapping[str, str]:
        return {tpu.job: "running" if tpu.begun else "queued" for tpu in self._state.tpus.values() if tpu.job}

    def poll(self) -> dict[str, Ended]:
        state = self._state
        self._list_again()
        for tpu in list(state.tpus.values()):
            self._advance(tpu)
        ended, state.ended = state.ended, {}
        return ended

    def stop(self, names: Sequence[str] | None = None) -> None:
        for tpu in self._state.tpus.values():
            if tpu.job and (names is None or tpu.job in names):
                (self._folder(tpu) / "stop").touch()
                if not tpu.begun and tpu.call is None:
                    self._end(tpu, Ended(None, "it had not begun"))

    def close(self) -> None:
        """Deletes the workers that have no job, and tells of those that have one."""
        state = self._state
        for tpu in list(state.tpus.values()):
            if tpu.job:
                print(f"{tpu.name} goes on with {tpu.job}; the same command takes it back.", file=sys.stderr)
            else:
                self._drop(tpu)
        state.pool.shutdown()
        for name, call in state.deletes.items():
            if call.result().returncode and "NOT_FOUND" not in call.result().stderr:
                command = config.quote_command(self._delete(name))
                print(f"{name} may still stand, and cost: {command}", file=sys.stderr)

    # One worker.

    def _advance(self, tpu: "_Tpu") -> None:
        """Takes a worker and its job as far as they are."""
        now = time.monotonic()
        if tpu.state in LOST:
            if tpu.job:  # what could never be had is a failure, with the reason; what was had and lost is none
                self._end(tpu, Ended(1 if tpu.state == "FAILED" else None, f"{tpu.state} {tpu.told}".strip()))
            self._drop(tpu)
        elif tpu.job is None:
            if now - tpu.idle_since > SECONDS_IDLE:
                self._drop(tpu)
        elif tpu.begun:
            if now >= tpu.next_look:
                tpu.next_look = now + SECONDS_BETWEEN_LOOKS
                self._look(tpu, now)
        elif tpu.call is not None:
            if tpu.call.done():
                self._began(tpu, tpu.call.result(), now)
        elif tpu.state == "ACTIVE" and now >= tpu.next_try:
            tpu.ready = tpu.ready or now
            tpu.call = self._state.pool.submit(self._begin, tpu.name, self._folder(tpu))

    def _begin(self, name: str, folder: pathlib.Path) -> subprocess.CompletedProcess:
        """Tells the hosts of each other, and begins the job on all of them. Runs in a thread of its own."""
        described = _run(self._describe(name))
        if described.returncode:
            return described
        try:
            hosts = [endpoint["ipAddress"] for endpoint in json.loads(described.stdout)["networkEndpoints"]]
            job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
            _write_job(folder, job["command"], job["log"], hosts)
        except (KeyError, ValueError, OSError) as error:
            return subprocess.CompletedProcess([], 1, "", f"the hosts of {name} cannot be told: {error!r}")
        return _run(self._ssh(name, folder))

    def _began(self, tpu: "_Tpu", answer: subprocess.CompletedProcess, now: float) -> None:
        tpu.call, tpu.next_try = None, now + SECONDS_BETWEEN_TRIES
        if answer.returncode == 0:
            tpu.begun, tpu.signs, tpu.signs_since = True, (), now
            self._save()
        elif (self._folder(tpu) / "stop").exists():
            self._end(tpu, Ended(None, "it had not begun"))
        elif now - tpu.ready > 60 * self.setup_minutes:  # until then the host may not be set up yet
            self._end(tpu, Ended(1, f"it could not begin on {tpu.name}: {_last_line(answer.stderr)}"))
            self._drop(tpu)

    def _look(self, tpu: "_Tpu", now: float) -> None:
        """Whether the job has ended on all hosts, or a host is silent."""
        folder = self._folder(tpu)
        job = read_json(folder / "job.json")
        hosts = range(len(job["hosts"]))
        statuses = [read_json(folder / f"exit.{i}") for i in hosts]
        if None not in statuses:
            failed = sorted((status for status in statuses if status not in (0, 75)), key=lambda status: status < 0)
            self._end(tpu, Ended(failed[0] if failed else max(statuses)))  # one that failed has others killed
            return
        if any(statuses):  # the others wait for that host
            (folder / "stop").touch()
        signs = tuple(read_json(folder / f"alive.{i}") for i in hosts)
        if signs != tpu.signs:
            tpu.signs, tpu.signs_since = signs, now
        elif now - tpu.signs_since > SECONDS_SILENT:
            self._end(tpu, Ended(None, f"no sign of life from {tpu.name} for {SECONDS_SILENT:.0f} seconds"))
            self._drop(tpu)

    def _end(self, tpu: "_Tpu", ended: Ended) -> None:
        self._state.ended[tpu.job] = ended
        tpu.job, tpu.begun, tpu.idle_since = None, False, time.monotonic()
        self._save()

    def _drop(self, tpu: "_Tpu") -> None:
        """Forgets a worker, and deletes it. What survives that is still listed, and deleted again."""
        state = self._state
        state.tpus.pop(tpu.name, None)
        state.deletes[tpu.name] = state.pool.submit(_run, self._delete(tpu.name))
        self._save()

    def _list_again(self) -> None:
        """Takes what gcloud listed, and asks again when it is time."""
        state, now = self._state, time.monotonic()
        if state.listing is None:
            if now >= state.next_list:
                state.listing = state.pool.submit(_run, self._list()), set(state.tpus)
            return
        call, known = state.listing
        if not call.done():
            return
        state.listing, state.next_list = None, now + SECONDS_BETWEEN_LISTS
        if call.result().returncode:  # what was known holds until gcloud answers
            return
        states = self._states(call.result().stdout, state.sweep.path)
        for name in known & set(state.tpus):
            state.tpus[name].state, state.tpus[name].told = states.get(name, ("GONE", ""))
        for name, (found, _) in states.items():
            deleting = name in state.deletes and not state.deletes[name].done()
            if name not in state.tpus and found != "DELETING" and not deleting:
                self._drop(_Tpu(name))

    def _states(self, listed: str, path: pathlib.Path) -> dict[str, tuple[str, str]]:
        """The sweep's queued resources: state, and what gcloud says of it."""
        found = {}
        for resource in json.loads(listed or "[]"):
            name, state = resource["name"].rpartition("/")[2], resource.get("state", {})
            if re.fullmatch(re.escape(self._prefix(path)) + r"\d+", name):
                told = state.get("failedData", {}).get("error", {}).get("message", "")
                found[name] = state.get("state", ""), " ".join(told.split())[:300]
        return found

    # Commands.

    def _place(self, jobs: Sequence[Job]) -> list["_Placed"]:
        """Gives jobs to workers without one, then to new ones; more than there may be, to these in turn."""
        if not jobs:
            return []
        path, state = _sweep_path(jobs[0]), getattr(self, "_state", None)
        idle = [tpu.name for tpu in state.tpus.values() if not tpu.job and tpu.state not in LOST] if state else []
        most = max(1, self.room()) if state else 1
        first = state.next if state else _remembered(path)["next"]
        names = (idle + [f"{self._prefix(path)}{first + i}" for i in range(most)])[: min(most, len(jobs))]
        placed = []
        for i, job in enumerate(jobs):
            name = names[i % len(names)]
            create = self._create(name) if name not in idle and i < len(names) else None
            placed.append(_Placed(job, name, create, self._describe(name), self._ssh(name, _job_folder(job))))
        return placed

    def _create(self, name: str) -> list[str]:
        values = {
            "node-id": name,
            "accelerator-type": self.accelerator_type,
            "runtime-version": self.runtime_version,
            "valid-until-duration": self.valid_until,
            "network": self.network,
            "subnetwork": self.subnetwork,
            "service-account": self.service_account,
            "metadata-from-file": f"startup-script={self.startup_script}" if self.startup_script else "",
        }
        given = [f"--{flag}={value}" for flag, value in values.items() if value]
        switches = {"--spot": self.spot, "--reserved": self.reserved, "--internal-ips": self.internal}
        given += [flag for flag, on in switches.items() if on]
        return self._gcloud("queued-resources", "create", name, *given, "--async")

    def _describe(self, name: str) -> list[str]:
        return self._gcloud("tpu-vm", "describe", name, "--format=json(networkEndpoints)")

    def _ssh(self, name: str, folder: pathlib.Path) -> list[str]:
        """What begins a job on all hosts. Their shell reads the command, so it is quoted: it is a list of arguments."""
        remote = ["env", f"--chdir={self.directory}", self.python, "-m", "launch.executors.tpu_host", str(folder)]
        reach = ["--internal-ip"] if self.internal else []
        return self._gcloud("tpu-vm", "ssh", name, "--worker=all", f"--command={config.quote_command(remote)}", *reach)

    def _list(self) -> list[str]:
        return self._gcloud("queued-resources", "list", "--format=json")

    def _delete(self, name: str) -> list[str]:
        return self._gcloud("queued-resources", "delete", name, "--force", "--async")

    def _gcloud(self, *arguments: str) -> list[str]:
        project = [f"--project={self.project}"] if self.project else []
        return ["gcloud", "compute", "tpus", *arguments, f"--zone={self.zone}", *project, "--quiet"]

    def _prefix(self, path: pathlib.Path) -> str:
        """How the names of a sweep's queued resources begin."""
        slug = re.sub(r"[^a-z0-9]+", "-", path.name.lower())[:24].strip("-") or "sweep"
        return f"jaxdl-{slug}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}-"

    def _folder(self, tpu: "_Tpu") -> pathlib.Path:
        return self._state.sweep.path / "tpu_vm" / "jobs" / tpu.job

    def _save(self) -> None:
        state = self._state
        path = state.sweep.path / "tpu_vm" / "tpus.json"
        tpus = {tpu.name: [tpu.job, tpu.begun] for tpu in state.tpus.values()}
        with guard_disk(path):
            path.parent.mkdir(exist_ok=True)
            replace_file(path, json.dumps({"next": state.next, "tpus": tpus}))


@dataclasses.dataclass(frozen=True)
class _Placed:
    """A job, its worker, and the commands that bring them together; `create` where the worker is new."""

    job: Job
    tpu: str
    create: list[str] | None
    describe: list[str]
    begin: list[str]


@dataclasses.dataclass
class _Tpu:
    """A worker: a queued resource with its TPU.

    Attributes:
      job: the name of its job, and whether that has `begun`.
      state: of the queued resource, as last listed; `told` is what gcloud says of it.
      call: what begins the job, while it is under way; it is not tried again before `next_try`.
      ready: since when the TPU could have begun the job.
      signs: the signs of life of the job's hosts, unchanged since `signs_since`; looked at again at `next_look`.
      idle_since: since when it has no job.
    """

    name: str
    job: str | None = None
    begun: bool = False
    state: str = ""
    told: str = ""
    call: concurrent.futures.Future | None = None
    next_try: float = 0.0
    ready: float | None = None
    signs: tuple = ()
    signs_since: float = dataclasses.field(default_factory=time.monotonic)
    next_look: float = 0.0
    idle_since: float = dataclasses.field(default_factory=time.monotonic)


@dataclasses.dataclass
class _State:
    """What an open `TpuVm` holds. `listing` is a list under way, and the workers that there were when it was asked."""

    sweep: SweepDirectory
    workers: int
    next: int
    tpus: dict[str, _Tpu] = dataclasses.field(default_factory=dict)
    ended: dict[str, Ended] = dataclasses.field(default_factory=dict)
    deletes: dict[str, concurrent.futures.Future] = dataclasses.field(default_factory=dict)
    listing: tuple[concurrent.futures.Future, set[str]] | None = None
    next_list: float = 0.0
    pool: concurrent.futures.ThreadPoolExecutor = dataclasses.field(
        default_factory=lambda: concurrent.futures.ThreadPoolExecutor(16)
    )


def _run(command: Sequence[str]) -> subprocess.CompletedProcess:
    """Runs gcloud. It does not see the terminal, nor Ctrl-C, which is for the sweep."""
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS_A_COMMAND,
            start_new_session=True,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def _hint(told: str) -> str | None:
    return next((hint for pattern, hint in HINTS.items() if re.search(pattern, told, re.IGNORECASE)), None)


def _advice(told: str) -> str:
    """What gcloud says, in one line, with what to do about it where that is known."""
    return f"{_hint(told) or 'gcloud failed'} ({_last_line(told)})."


def _last_line(told: str) -> str:
    """The line that says what went wrong: the last that begins with error, else the last."""
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    return " ".join((errors or lines or ["it told nothing"])[-1].split()).rstrip(".")[:300]


def _remembered(path: pathlib.Path) -> dict:
    return read_json(path / "tpu_vm" / "tpus.json") or {"next": 1, "tpus": {}}


def _sweep_path(job: Job) -> pathlib.Path:
    return job.log.parent.parent


def _job_folder(job: Job) -> pathlib.Path:
    return _sweep_path(job) / "tpu_vm" / "jobs" / job.name


def _write_job(folder: pathlib.Path, command: Sequence[str], log, hosts: Sequence[str]) -> None:
    replace_file(folder / "job.json", json.dumps({"command": [*command], "log": str(log), "hosts": [*hosts]}))
