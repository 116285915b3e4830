"""The API of a Kubernetes cluster, as far as a sweep needs it, through the official client."""

import contextlib
import dataclasses
import json
import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from kubernetes import client
from kubernetes import config as kube
from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

from jaxdl.errors import InputError, RunError
from launch.executors.base import Ended

SECONDS_A_REQUEST = (10, 60)  # to connect, to answer
PAUSES = (1, 2, 4, 8)  # before what may pass by itself is tried again

TRANSIENT = (408, 429, 500, 502, 503, 504)

CANNOT_START = (
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ImagePullBackOff",
    "InvalidImageName",
)
"""Why a pod waits for ever: no such image, no such Secret."""


@dataclasses.dataclass(frozen=True)
class Seen:
    """A Job as the cluster has it: its name, that of the sweep's job, whether a pod of it runs, and how it ended."""

    name: str
    job: str
    running: bool
    ended: Ended | None


class Cluster:
    """The API of one namespace of a cluster, as far as a sweep needs it; `selector` picks the sweep's Jobs and pods.

    Raises:
      InputError: no kubeconfig, or no such context in it.
    """

    def __init__(self, context: str, namespace: str, selector: str):
        configuration, own = _read_kubeconfig(context)
        self.host, self.namespace, self.selector = configuration.host, namespace or own, selector
        configuration.retries = False  # `_call` does that
        api = client.ApiClient(configuration)
        self._batch, self._core = client.BatchV1Api(api), client.CoreV1Api(api)
        self._authorization = client.AuthorizationV1Api(api)

    def __str__(self) -> str:
        return f"the cluster at {self.host}"

    def check(self, needed: Sequence[tuple[str, str, str]], claim: str, service_account: str) -> None:
        """Whether everything is there and may be done. Raises: InputError."""
        try:
            for verb, group, resource in needed:
                attributes = {"namespace": self.namespace, "verb": verb, "group": group, "resource": resource}
                review = {"spec": {"resourceAttributes": attributes}}
                answer = self._call(self._authorization.create_self_subject_access_review, review, pauses=PAUSES[:2])
                if not answer.status.allowed:
                    raise InputError(
                        f"you may not {verb} {resource} in namespace {self.namespace} of {self}; `kubectl auth can-i "
                        f"{verb} {resource} --namespace={self.namespace}` asks again."
                    )
            self._find("claim", claim, self._core.read_namespaced_persistent_volume_claim)
            if service_account:
                self._find("service_account", service_account, self._core.read_namespaced_service_account)
        except ApiException as error:
            hint = "; are you logged in? `kubectl get jobs` tells" if error.status == 401 else ""
            raise InputError(f"{self} refuses: {_reason(error)}{hint}.") from None
        except ConnectionError as error:
            raise InputError(f"{self} does not answer: {error}; `kubectl cluster-info` asks again.") from None

    def _find(self, flag: str, name: str, read) -> None:
        try:
            self._call(read, name, self.namespace, pauses=PAUSES[:2])
        except ApiException as error:
            if error.status != 404:
                raise
            try:
                self._call(self._core.read_namespace, self.namespace)
            except ApiException as other:  # whether it is there may be kept from us
                if other.status == 404:
                    raise InputError(f"{self} has no namespace {self.namespace}; name another.") from None
            raise InputError(f"--kubernetes.{flag}={name}: there is none in namespace {self.namespace}.") from None

    def look(self) -> list[Seen]:
        """The sweep's Jobs. Raises: ConnectionError; RunError, when the cluster refuses."""
        try:
            jobs = self._call(self._batch.list_namespaced_job, self.namespace, label_selector=self.selector).items
            pods = self._call(self._core.list_namespaced_pod, self.namespace, label_selector=self.selector).items
        except ApiException as error:
            raise RunError(f"{self} refuses: {_reason(error)}.") from None
        seen = []
        for job in jobs:
            name = job.metadata.name
            own = [pod for pod in pods if pod.metadata.labels.get("batch.kubernetes.io/job-name") == name]
            running = any(pod.status.phase == "Running" for pod in own)
            seen.append(Seen(name, job.metadata.annotations["jaxdl/job"], running, _how_ended(job, own)))
        return seen

    def create(self, job: Mapping[str, Any], service: Mapping[str, Any] | None = None) -> None:
        """Creates a Job, and a Service that the cluster deletes with it. Raises: ConnectionError; RunError, refused."""
        name = job["metadata"]["name"]
        try:
            made = self._create(self._batch.create_namespaced_job, self._batch.read_namespaced_job, job)
        except ApiException as error:
            raise RunError(f"{self} refuses the Job {name}: {_reason(error)}.") from None
        if service is None:
            return
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": made.metadata.uid}
        service = {**service, "metadata": {**service["metadata"], "ownerReferences": [owner]}}
        try:
            self._create(self._core.create_namespaced_service, self._core.read_namespaced_service, service)
        except (ApiException, ConnectionError) as error:
            with contextlib.suppress(ConnectionError):
                self.delete(name, "Background", patient=True)
            reason = _reason(error) if isinstance(error, ApiException) else error
            raise RunError(f"{self} refuses the Service {name}: {reason}.") from None

    def _create(self, create, read, body: Mapping[str, Any]):
        try:
            return self._call(create, self.namespace, body, pauses=PAUSES)
        except ApiException as error:
            if error.status != 409:  # names are ours alone: a try that seemed to fail had made it
                raise
            return self._call(read, body["metadata"]["name"], self.namespace, pauses=PAUSES)

    def delete(self, name: str, propagation: str, *, patient: bool = False) -> None:
        """Deletes a Job and its pods; nothing where it is gone. Raises: ConnectionError; RunError, when it refuses."""
        try:
            self._call(
                self._batch.delete_namespaced_job,
                name,
                self.namespace,
                propagation_policy=propagation,
                pauses=PAUSES if patient else (),
            )
        except ApiException as error:
            if error.status != 404:
                raise RunError(f"{self} refuses to delete the Job {name}: {_reason(error)}.") from None

    def _call(self, function, *arguments, pauses: Sequence[float] = (), **options):
        """One request, repeated after each pause while what hinders it may pass by itself.

        Raises:
          ConnectionError: it did not pass.
          ApiException: the cluster refuses.
        """
        for pause in (*pauses, None):
            try:
                return function(*arguments, _request_timeout=SECONDS_A_REQUEST, **options)
            except ApiException as error:
                if error.status not in TRANSIENT:
                    raise
                reason = _reason(error)
            except HTTPError as error:
                reason = str(error)
            if pause is None:
                raise ConnectionError(" ".join(reason.split())[:200])
            time.sleep(pause)


def _read_kubeconfig(context: str):
    """The client's configuration, and the context's namespace. Raises: InputError."""
    configuration = client.Configuration()
    file = os.environ.get("KUBECONFIG") or None  # the client's own default is read when it is imported
    try:
        kube.load_kube_config(file, context or None, configuration)
        contexts, current = kube.list_kube_config_contexts(file)
        chosen = next((entry for entry in contexts if entry["name"] == context), current)
        return configuration, chosen["context"].get("namespace") or "default"
    except (kube.ConfigException, OSError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
    if not context and "KUBERNETES_SERVICE_HOST" in os.environ:  # a pod of the cluster itself
        try:
            kube.load_incluster_config(configuration)
            own = pathlib.Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace").read_text(encoding="utf-8")
            return configuration, own.strip()
        except (kube.ConfigException, OSError) as error:
            reason = str(error)
    raise InputError(
        f"no cluster: {reason.rstrip('.')}; expected a kubeconfig (KUBECONFIG, ~/.kube/config) with the context "
        f"{context or '(current)'}; `kubectl config get-contexts` lists them."
    )


def _how_ended(job, pods: Sequence[Any]) -> Ended | None:
    """How a Job ended; None while it has not. One whose pods can never start has ended, too."""
    for condition in job.status.conditions or ():
        if condition.status == "True" and condition.type == "Complete":
            return Ended(0)
        if condition.status == "True" and condition.type == "Failed":
            return _first_failure(pods) or Ended(None, _line(f"{condition.reason}: {condition.message}"))
    if job.metadata.deletion_timestamp is not None:
        return None  # its pods are saving
    for container in _containers(pods):
        waiting = container.state.waiting
        if waiting is not None and waiting.reason in CANNOT_START:
            return Ended(1, _line(f"{waiting.reason}: {waiting.message or ''}"))
    return None


def _first_failure(pods: Sequence[Any]) -> Ended | None:
    """The failure that came first: those of other hosts follow from it."""
    failed = [c.state.terminated for c in _containers(pods) if c.state.terminated and c.state.terminated.exit_code]
    failed = [end for end in failed if end.exit_code != 75]
    if not failed:
        return None
    end = min(failed, key=lambda end: (end.finished_at is None, str(end.finished_at)))
    last = (end.message or "").strip().splitlines()[-1:]  # of what the container printed before the log was open
    told = [end.reason if end.reason not in (None, "Error") else "", *last]
    status = end.exit_code if end.exit_code <= 128 else 128 - end.exit_code
    return Ended(status, _line(": ".join(part for part in told if part)))


def _containers(pods: Sequence[Any]) -> list[Any]:
    return [container for pod in pods for container in pod.status.container_statuses or ()]


def _line(text: str) -> str:
    return " ".join(text.split()).strip(": ")[:300]


def _reason(error) -> str:
    """What an ApiException says, in one line."""
    try:
        message = json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):
        message = error.reason
    return f"{' '.join(str(message).split()).rstrip('.')[:300]} ({error.status})"
