"""Runs as Kubernetes Jobs, one a trial: manifests under SWEEP/kubernetes, applied with the official client.

A Job is indexed, with one index a host. With several hosts the pods find each other through a headless Service of the
Job's name: the first is the coordinator, and what `jaxdl.sharding.initialize_distributed` reads stands in the manifest.

How a pod ends decides what follows, also while no sweep command lives (the manifest's podFailurePolicy):

    status 75, or disrupted by the cluster    another pod goes on from the checkpoint; that is no failure
    status 1 or 2                             the Job fails: whether it is tried again is the sweep's to say
    killed, aborted                           another pod, `--kubernetes.restarts` times

Nothing of the environment here is written to a manifest. The Jobs are found again by their labels.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import pathlib
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from jaxdl import config
from jaxdl.errors import InputError, RunError
from jaxdl.train.record import guard_disk
from jaxdl.types import NonNegativeInt, PositiveInt
from launch.executors.base import Ended, Executor, Job, train_job
from launch.sweeps.directory import SweepDirectory
from launch.sweeps.plan import Trial

PORT = 8476
"""Of the coordinator of several hosts."""

SECONDS_BETWEEN_LOOKS = 5.0
SECONDS_KEPT = 7 * 24 * 3600  # for which the cluster keeps a Job that ended while no sweep command looked

NEEDED = (
    ("create", "batch", "jobs"),
    ("list", "batch", "jobs"),
    ("delete", "batch", "jobs"),
    ("list", "", "pods"),
    ("get", "", "persistentvolumeclaims"),
)
NEEDED_BY_HOSTS = (("create", "", "services"),)


@dataclasses.dataclass(frozen=True)
class Kubernetes(Executor):
    """Jobs in a Kubernetes cluster, with GPUs or TPU slices. They go on when the sweep command ends.

    The sweep directory must lie on a volume that is mounted at the same path here and, by its PersistentVolumeClaim
    (ReadWriteMany), in every pod. The image must have Python and jaxdl with its launch folder.

    Attributes:
      image: the container image.
      claim: the PersistentVolumeClaim that holds the sweep directory.
      mount: where the claim is mounted, here and in the pods; --workdir lies under it.
      namespace: the namespace; empty is that of the context.
      context: the context of the kubeconfig; empty is its current one.
      python: the Python interpreter in the image.
      directory: where jaxdl's repository stands in the image or on the volume; empty is the image's own directory.
      gpus: GPUs a host (nvidia.com/gpu).
      tpu_type: the kind of TPU slice, as GKE's label gke-tpu-accelerator has it: tpu-v5-lite-podslice.
      tpu_topology: the topology of the slice: 4x4. The number of hosts follows from it.
      tpu_chips: the chips of the slice on one host (google.com/tpu).
      hosts: hosts of one trial, joined by jax.distributed; one unless a TPU topology says more.
      cpu: cores a host: 8, or 500m.
      memory: memory a host: 32Gi.
      node_selector: labels that a node must have, each KEY=VALUE: cloud.google.com/gke-accelerator=nvidia-l4.
      tolerations: taints of nodes to put up with, each KEY, KEY:EFFECT or KEY=VALUE:EFFECT.
      priority_class: the PriorityClass of the pods.
      service_account: the ServiceAccount of the pods.
      env_from_secret: Secrets of the namespace whose entries become environment variables of the runs.
      labels: labels of the Jobs and pods, each KEY=VALUE: kueue.x-k8s.io/queue-name=research.
      user: the number of the user that the pods run as; none is the image's own.
      group: the number of that user's group.
      restarts: how often a killed run is started again by the cluster itself.
      grace: seconds that a run has to save when it is asked to leave.
    """

    outlives: ClassVar[bool] = True

    image: str = ""
    claim: str = ""
    mount: str = ""
    namespace: str = ""
    context: str = ""
    python: str = "python3"
    directory: str = ""
    gpus: NonNegativeInt = 0
    tpu_type: str = ""
    tpu_topology: str = ""
    tpu_chips: PositiveInt = 4
    hosts: PositiveInt | None = None
    cpu: str = ""
    memory: str = ""
    node_selector: tuple[str, ...] = ()
    tolerations: tuple[str, ...] = ()
    priority_class: str = ""
    service_account: str = ""
    env_from_secret: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    user: NonNegativeInt | None = None
    group: NonNegativeInt | None = None
    restarts: NonNegativeInt = 2
    grace: PositiveInt = 120

    def open(self, sweep: SweepDirectory, workers: int | None) -> None:
        self.check(sweep.path)
        try:
            from launch.executors.kubernetes_cluster import Cluster
        except ModuleNotFoundError as error:
            raise InputError(
                f"--executor=kubernetes needs the Kubernetes client (no module {error.name}): "
                "pip install -e '.[kubernetes]'."
            ) from None
        cluster = Cluster(self.context, self.namespace, f"jaxdl/sweep={self._sweep_id(sweep.path)}")
        cluster.check(NEEDED + NEEDED_BY_HOSTS * (self.num_hosts > 1), self.claim, self.service_account)
        state = _State(sweep, workers, cluster)
        object.__setattr__(self, "_state", state)
        try:
            self._look(end=False)  # `--status` opens, too, beside the command that runs the sweep and sees ends
        except ConnectionError as error:
            raise InputError(f"{cluster} does not answer: {error}.") from None
        except RunError as error:
            raise InputError(str(error)) from None

    def check(self, path: pathlib.Path) -> None:
        """Raises: InputError, for flags that are missing or do not fit each other or the sweep directory `path`."""
        for name, example in (("image", "REGISTRY/jaxdl:TAG"), ("claim", "CLAIM"), ("mount", "/mnt/CLAIM")):
            if not getattr(self, name):
                raise InputError(f"--executor=kubernetes needs --kubernetes.{name}={example}.")
        if not pathlib.PurePath(self.mount).is_absolute() or not path.is_relative_to(self.mount):
            raise InputError(
                f"--workdir={path} does not lie under --kubernetes.mount={self.mount}: pods reach it by the claim "
                f"{self.claim} alone, mounted there; name a directory under {self.mount}."
            )
        if self.gpus and self.tpu_type:
            raise InputError("--kubernetes.gpus and --kubernetes.tpu_type exclude each other; give one.")
        if bool(self.tpu_type) != bool(self.tpu_topology):
            raise InputError("--kubernetes.tpu_type and --kubernetes.tpu_topology go together; give both.")
        if self.tpu_topology:
            chips = self._chips()
            if chips % self.tpu_chips:
                raise InputError(
                    f"--kubernetes.tpu_topology={self.tpu_topology} has {chips} chips, which --kubernetes.tpu_chips="
                    f"{self.tpu_chips} a host do not divide."
                )
            if self.hosts not in (None, chips // self.tpu_chips):
                raise InputError(
                    f"--kubernetes.hosts={self.hosts}: a slice of {self.tpu_topology} with {self.tpu_chips} chips a "
                    f"host has {chips // self.tpu_chips}; leave the flag out."
                )
        for name in ("node_selector", "labels"):
            _pairs(name, getattr(self, name))
        for text in self.tolerations:
            _toleration(text)

    @property
    def num_hosts(self) -> int:
        """Hosts, and so pods, of one trial."""
        return self._chips() // self.tpu_chips if self.tpu_topology else self.hosts or 1

    def jobs(self, trials: Sequence[Trial]) -> list[Job]:
        return [train_job(self._state.sweep, trial) for trial in trials]

    def room(self) -> int:
        state = self._state
        return 1000 if state.workers is None else state.workers - len(state.phases)

    def preview(self, jobs: Sequence[Job]) -> list[str]:
        """The manifests that would be written, and what kubectl would do with each. Asks no cluster."""
        for job in jobs[:1]:
            self.check(_folder(job).parent)
        where = [f"--{key}={value}" for key in ("context", "namespace") if (value := getattr(self, key))]
        files = [f"--filename={_folder(job) / name}.yaml" for name, job in self._named(jobs)]
        return [config.quote_command(["kubectl", "create", *where, file]) for file in files]

    def start(self, jobs: Sequence[Job]) -> None:
        import yaml

        state = self._state
        for name, job in self._named(jobs):
            folder = _folder(job)
            manifest = self.manifest(job, name, state.cluster.namespace)
            with guard_disk(folder):
                folder.mkdir(exist_ok=True)
                (folder / f"{name}.json").write_text(json.dumps(self._entries(job), indent=1) + "\n", encoding="utf-8")
                text = yaml.safe_dump_all(json.loads(json.dumps(manifest)), sort_keys=False)  # a copy has no aliases
                (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
            try:
                state.cluster.create(*manifest)
            except ConnectionError as error:
                raise RunError(f"{state.cluster} does not answer: {error}; the same command goes on.") from None
            state.names[name], state.phases[job.name] = job.name, "queued"

    def held(self) -> Mapping[str, str]:
        return dict(self._state.phases)

    def poll(self) -> dict[str, Ended]:
        state = self._state
        if time.monotonic() >= state.next_look:
            with contextlib.suppress(ConnectionError):  # what was known last holds until it answers
                self._look()
            state.next_look = time.monotonic() + SECONDS_BETWEEN_LOOKS
        ended, state.ended = state.ended, {}
        return ended

    def stop(self, names: Sequence[str] | None = None) -> None:
        state = self._state
        for name, job in list(state.names.items()):
            if names is None or job in names:
                try:
                    state.cluster.delete(name, "Foreground", patient=True)
                except ConnectionError as error:
                    raise RunError(
                        f"{state.cluster} does not answer: {error}; `kubectl delete --namespace="
                        f"{state.cluster.namespace} job {name}` stops {job}."
                    ) from None

    def _look(self, end: bool = True) -> None:
        """Asks the cluster for this sweep's Jobs; notes and deletes those that have ended. Raises: ConnectionError."""
        state = self._state
        listed = state.cluster.look()
        for seen in listed:
            if seen.ended is None:
                state.names[seen.name] = seen.job
                state.phases[seen.job] = "running" if seen.running else "queued"
            elif end:
                if seen.name not in state.told:
                    self._note(seen.name, seen.job, seen.ended)
                with contextlib.suppress(ConnectionError):  # it is still listed the next time, then
                    state.cluster.delete(seen.name, "Background")
        for name in set(state.names) - {seen.name for seen in listed}:
            self._note(name, state.names[name], Ended(None, "its Job was deleted"))

    def _note(self, name: str, job: str, ended: Ended) -> None:
        state = self._state
        state.told.add(name)
        state.names.pop(name, None)
        state.phases.pop(job, None)
        state.ended[job] = ended

    # Manifests.

    def manifest(self, job: Job, name: str, namespace: str) -> list[dict[str, Any]]:
        """The Job of a job, and with several hosts its Service."""
        hosts = self.num_hosts
        labels = {
            **_pairs("labels", self.labels),
            "app.kubernetes.io/managed-by": "jaxdl",
            "jaxdl/sweep": self._sweep_id(_folder(job).parent),
        }
        metadata = {"name": name, "namespace": namespace, "labels": labels, "annotations": {"jaxdl/job": job.name}}
        codes = {"containerName": "train", "operator": "In"}
        spec = {
            "completionMode": "Indexed",
            "completions": hosts,
            "parallelism": hosts,
            "backoffLimit": self.restarts * hosts,  # when one host dies the others do, too
            "podReplacementPolicy": "Failed",  # never two pods of one index in one run directory
            "ttlSecondsAfterFinished": SECONDS_KEPT,
            "podFailurePolicy": {
                "rules": [
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                    {"action": "Ignore", "onExitCodes": {**codes, "values": [75]}},
                    {"action": "FailJob", "onExitCodes": {**codes, "values": [1, 2]}},
                ]
            },
            "template": {"metadata": {"labels": labels}, "spec": self._pod(job, name)},
        }
        documents = [{"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}]
        if hosts > 1:
            service = {
                "clusterIP": "None",
                "publishNotReadyAddresses": True,
                "selector": {"batch.kubernetes.io/job-name": name},
                "ports": [{"name": "coordinator", "port": PORT}],
            }
            documents.append({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service})
        return documents

    def _pod(self, job: Job, name: str) -> dict[str, Any]:
        amounts = {"cpu": self.cpu, "memory": self.memory, "nvidia.com/gpu": self.gpus}
        selector = _pairs("node_selector", self.node_selector)
        if self.tpu_type:
            amounts["google.com/tpu"] = self.tpu_chips
            selector["cloud.google.com/gke-tpu-accelerator"] = self.tpu_type
            selector["cloud.google.com/gke-tpu-topology"] = self.tpu_topology
        amounts = {resource: str(amount) for resource, amount in amounts.items() if amount}
        entries = _folder(job) / f"{name}.json"
        container = {
            "name": "train",
            "image": self.image,
            "command": [self.python, "-m", "launch.executors.worker", f"--jobs={_literal(str(entries))}"],
            "workingDir": self.directory,
            "env": self._environment(name),
            "envFrom": [{"secretRef": {"name": secret}} for secret in self.env_from_secret],
            "resources": {"requests": amounts, "limits": amounts} if amounts else {},
            "volumeMounts": [{"name": "sweep", "mountPath": self.mount}, {"name": "shm", "mountPath": "/dev/shm"}],
            "terminationMessagePolicy": "FallbackToLogsOnError",  # tells why a run could not begin
        }
        pod = {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": self.grace,
            "subdomain": name if self.num_hosts > 1 else "",
            "serviceAccountName": self.service_account,
            "priorityClassName": self.priority_class,
            "nodeSelector": selector,
            "tolerations": [_toleration(text) for text in self.tolerations],
            "securityContext": {
                key: number
                for key, number in (("runAsUser", self.user), ("runAsGroup", self.group))
                if number is not None
            },
            "containers": [{key: value for key, value in container.items() if value}],
            "volumes": [
                {"name": "sweep", "persistentVolumeClaim": {"claimName": self.claim}},
                {"name": "shm", "emptyDir": {"medium": "Memory"}},  # for NCCL and Grain: a container's own is 64 MiB
            ],
        }
        return {key: value for key, value in pod.items() if value}

    def _environment(self, name: str) -> list[dict[str, Any]]:
        if self.num_hosts == 1:
            return []
        index = {"fieldRef": {"fieldPath": "metadata.annotations['batch.kubernetes.io/job-completion-index']"}}
        return [
            {"name": "JAX_COORDINATOR_ADDRESS", "value": f"{name}-0.{name}:{PORT}"},
            {"name": "JAX_NUM_PROCESSES", "value": str(self.num_hosts)},
            {"name": "JAX_PROCESS_ID", "valueFrom": index},
        ]

    def _entries(self, job: Job) -> list[dict[str, Any]]:
        """What the worker of each host, which finds its own by JOB_COMPLETION_INDEX, is to run."""
        command = ["/usr/bin/env", self.python, *job.command[1:]]  # the worker itself looks into no PATH
        logs = [job.log, *(job.log.with_name(f"{job.log.stem}.host{i}.log") for i in range(1, self.num_hosts))]
        return [{"name": job.name, "command": command, "log": str(log)} for log in logs]

    def _named(self, jobs: Sequence[Job]) -> list[tuple[str, Job]]:
        """Jobs with names for the cluster: DNS labels, numbered on from those that the sweep has had."""
        if not jobs:
            return []
        folder = _folder(jobs[0])
        state = getattr(self, "_state", None)
        taken = [path.stem for path in folder.glob("*.yaml")] + ([*state.names, *state.told] if state else [])
        first = 1 + max((int(name.rsplit("-", 2)[1]) for name in taken), default=0)
        slug = re.sub(r"[^a-z0-9]+", "-", folder.parent.name.lower())[:24].strip("-") or "sweep"
        names = []
        for number, job in enumerate(jobs, first):
            digest = hashlib.sha256(f"{self._sweep_id(folder.parent)} {job.name} {number}".encode()).hexdigest()[:8]
            names.append((f"jaxdl-{slug}-{number:04d}-{digest}", job))
        return names

    def _sweep_id(self, path: pathlib.Path) -> str:
        """The same for whoever runs the sweep in this directory of this claim."""
        return hashlib.sha256(f"{self.claim}:{path}".encode()).hexdigest()[:16]

    def _chips(self) -> int:
        if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){1,2}", self.tpu_topology):
            raise InputError(f"--kubernetes.tpu_topology={self.tpu_topology}: expected 4x4, or 2x2x4.")
        return math.prod(map(int, self.tpu_topology.split("x")))


@dataclasses.dataclass
class _State:
    """What an open `Kubernetes` knows.

    `names` are the Jobs that have not ended, with the names of their jobs; `phases` those jobs, queued or running;
    `ended` what the next poll tells; `told` the Jobs whose end is known, which may still be listed.
    """

    sweep: SweepDirectory
    workers: int | None
    cluster: Any
    names: dict[str, str] = dataclasses.field(default_factory=dict)
    phases: dict[str, str] = dataclasses.field(default_factory=dict)
    ended: dict[str, Ended] = dataclasses.field(default_factory=dict)
    told: set[str] = dataclasses.field(default_factory=set)
    next_look: float = 0.0


def _folder(job: Job) -> pathlib.Path:
    return job.log.parent.parent / "kubernetes"


def _pairs(flag: str, texts: Sequence[str]) -> dict[str, str]:
    for text in texts:
        if not re.fullmatch(r"[^=]+=[^=]*", text):
            raise InputError(f"--kubernetes.{flag}={text}: expected KEY=VALUE, several separated by commas.")
    return dict(text.split("=") for text in texts)


def _toleration(text: str) -> dict[str, str]:
    matched = re.fullmatch(r"([^=:]+)(?:=([^:]*))?(?::(NoSchedule|PreferNoSchedule|NoExecute))?", text)
    if not matched:
        raise InputError(
            f"--kubernetes.tolerations={text}: expected KEY, KEY:EFFECT or KEY=VALUE:EFFECT, where EFFECT is "
            "NoSchedule, PreferNoSchedule or NoExecute."
        )
    key, value, effect = matched.groups()
    operator = {"operator": "Exists"} if value is None else {"operator": "Equal", "value": value}
    return {"key": key, **operator, **({"effect": effect} if effect else {})}


def _literal(text: str) -> str:
    """Text in which Kubernetes puts no variable: it would replace $(NAME) in a command."""
    return text.replace("$(", "$$(")
