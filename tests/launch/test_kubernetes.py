"""The kubernetes executor: manifests against the schemas of Kubernetes, requests against a server of our own."""

import contextlib
import http.server
import json
import os
import pathlib
import re
import subprocess
import sys
import threading
import urllib.parse

import pytest

from jaxdl.errors import InputError, RunError
from launch.executors import kubernetes as executor_module
from launch.executors.base import Ended, train_job
from launch.executors.kubernetes import Kubernetes
from launch.sweeps.directory import SweepDirectory
from launch.sweeps.plan import Trial

pytest.importorskip("kubernetes")
kubernetes_validate = pytest.importorskip("kubernetes_validate")

import yaml  # noqa: E402

from launch.executors import kubernetes_cluster as cluster_module  # noqa: E402

FLAGS = {"image": "registry.example/jaxdl:1", "claim": "sweeps"}
TRIALS = [Trial(f"learning_rate={rate}__seed=0", {"learning_rate": rate, "seed": "0"}) for rate in ("0.1", "0.01")]

VARIANTS = {
    "cpu": {},
    "everything": {
        "gpus": 8,
        "hosts": 2,
        "cpu": "16",
        "memory": "200Gi",
        "node_selector": ("cloud.google.com/gke-accelerator=nvidia-l4",),
        "tolerations": ("nvidia.com/gpu", "team=vision:NoSchedule"),
        "priority_class": "low",
        "service_account": "trainer",
        "env_from_secret": ("wandb", "buckets"),
        "labels": ("kueue.x-k8s.io/queue-name=research",),
        "user": 1000,
        "group": 0,
        "directory": "/src",
    },
    "tpu_host": {"tpu_type": "tpu-v5-lite-podslice", "tpu_topology": "2x4", "tpu_chips": 8},
    "tpu_slice": {"tpu_type": "tpu-v5-lite-podslice", "tpu_topology": "4x8"},
}


# A cluster.


class FakeCluster(http.server.ThreadingHTTPServer):
    """What the executor needs of an API server: it keeps objects, and answers as `troubles` and `denied` say.

    Attributes:
      objects: by kind ("jobs") and name.
      troubles: what befalls the next requests: a status, "lost" (done, but no answer), or None.
      denied: verbs and resources that access reviews deny.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects = {
            "namespaces": {"research": {}},
            "persistentvolumeclaims": {"sweeps": {}},
            "serviceaccounts": {"trainer": {}},
            **{kind: {} for kind in ("jobs", "services", "pods")},
        }
        self.troubles, self.denied, self.requests = [], set(), []
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def set_pod(self, job, index=0, phase="Failed", code=None, waiting=None, **told):
        """Gives a Job's pod a status."""
        state = {"waiting": waiting} if waiting else {}
        if code is not None:
            state = {"terminated": {"exitCode": code, **told}}
        status = {"name": "train", "image": "i", "imageID": "i", "ready": False, "restartCount": 0, "state": state}
        labels = self.objects["jobs"][job]["metadata"]["labels"] | {"batch.kubernetes.io/job-name": job}
        self.objects["pods"][f"{job}-{index}"] = {
            "metadata": {"name": f"{job}-{index}", "labels": labels},
            "status": {"phase": phase, "containerStatuses": [status]},
        }

    def end_job(self, job, condition, reason=""):
        now = "2030-01-01T00:00:00Z"
        conditions = [{"type": condition, "status": "True", "reason": reason, "message": "", "lastTransitionTime": now}]
        self.objects["jobs"][job]["status"] = {"conditions": conditions}


class _Handler(http.server.BaseHTTPRequestHandler):
    def do(self):
        server, length = self.server, int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        url = urllib.parse.urlparse(self.path)
        server.requests.append((self.command, url.path, dict(urllib.parse.parse_qsl(url.query)), body))
        trouble = server.troubles.pop(0) if server.troubles else None
        if isinstance(trouble, int):
            return self.send(trouble, {"message": "told by the server"})
        status, answer = self.answer(url, body)
        if trouble == "lost":
            self.connection.close()
            return None
        return self.send(status, answer)

    do_GET = do_POST = do_DELETE = do

    def answer(self, url, body):
        server = self.server
        if url.path.endswith("/selfsubjectaccessreviews"):
            asked = body["spec"]["resourceAttributes"]
            allowed = (asked["verb"], asked["resource"]) not in server.denied
            return 201, body | {"status": {"allowed": allowed}}
        parts = url.path.partition("/v1/")[2].split("/")  # namespaces/NAMESPACE/KIND/NAME
        kind, name = (parts[2], parts[3] if len(parts) > 3 else None) if len(parts) > 2 else parts
        objects = server.objects[kind]
        if self.command == "POST":
            name = body["metadata"]["name"]
            if name in objects:
                return 409, {"message": "already exists"}
            objects[name] = json.loads(json.dumps(body)) | {"status": {}}
            objects[name]["metadata"]["uid"] = f"uid-of-{name}"
            return 201, objects[name]
        if name is None:
            label, _, value = dict(urllib.parse.parse_qsl(url.query))["labelSelector"].partition("=")
            return 200, {"items": [each for each in objects.values() if each["metadata"]["labels"][label] == value]}
        if name not in objects:
            return 404, {"message": f"{kind} {name} not found"}
        return 200, objects.pop(name) if self.command == "DELETE" else objects[name]

    def send(self, status, answer):
        data = json.dumps(answer).encode()
        with contextlib.suppress(OSError):
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    def log_message(self, *_):
        pass


def write_kubeconfig(path: pathlib.Path, port: int) -> None:
    context = {"cluster": "c", "user": "u", "namespace": "research"}
    text = yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "here", "context": context}],
            "current-context": "here",
        }
    )
    path.write_text(text)


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    server = FakeCluster()
    write_kubeconfig(tmp_path / "kubeconfig", server.server_address[1])
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(executor_module, "SECONDS_BETWEEN_LOOKS", 0)
    monkeypatch.setattr(cluster_module, "PAUSES", (0.01, 0.01))
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def sweep(tmp_path):
    sweep = SweepDirectory(tmp_path / "volume" / "My Sweep_1")
    sweep.open()
    yield sweep
    sweep.close()


def make(sweep, **flags) -> Kubernetes:
    return Kubernetes(**{**FLAGS, "mount": str(sweep.path.parent), **flags})


def start(sweep, trials=TRIALS, **flags) -> Kubernetes:
    executor = make(sweep, **flags)
    executor.open(sweep, None)
    executor.start(executor.jobs(trials))
    return executor


def job_names(cluster) -> list[str]:
    return list(cluster.objects["jobs"])


# Manifests.


@pytest.mark.parametrize("version", ["1.34", "1.37"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_manifests_fit_the_schemas_of_kubernetes(sweep, variant, version):
    documents = make(sweep, **VARIANTS[variant]).manifest(train_job(sweep, TRIALS[0]), "jaxdl-s-0001-abc", "research")
    assert [document["kind"] for document in documents] == ["Job", "Service"][: len(documents)]
    for document in documents:
        kubernetes_validate.validate(document, version, strict=True)


def test_a_wrong_manifest_does_not_fit_the_schemas(sweep):
    (document,) = make(sweep).manifest(train_job(sweep, TRIALS[0]), "jaxdl-s-0001-abc", "research")
    document["spec"]["template"]["spec"]["containers"][0]["resource"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, "1.37", strict=True)


def pod_of(sweep, **flags):
    document, *_ = make(sweep, **flags).manifest(train_job(sweep, TRIALS[0]), "jaxdl-s-0001-abc", "research")
    return document["spec"]["template"]["spec"]


def test_accelerators_become_resources_and_node_selectors(sweep):
    gpus = pod_of(sweep, **VARIANTS["everything"])
    amounts = {"cpu": "16", "memory": "200Gi", "nvidia.com/gpu": "8"}
    assert gpus["containers"][0]["resources"] == {"requests": amounts, "limits": amounts}
    assert gpus["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-l4"}
    assert gpus["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists"},
        {"key": "team", "operator": "Equal", "value": "vision", "effect": "NoSchedule"},
    ]
    assert gpus["securityContext"] == {"runAsUser": 1000, "runAsGroup": 0}  # group 0 is a group
    tpus = pod_of(sweep, **VARIANTS["tpu_slice"])
    assert tpus["containers"][0]["resources"]["limits"] == {"google.com/tpu": "4"}
    assert tpus["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "4x8",
    }


@pytest.mark.parametrize(
    "disrupted, code, action",
    [
        (False, 75, "Ignore"),
        (True, 75, "Ignore"),
        (True, 137, "Ignore"),
        (True, 1, "Ignore"),
        (False, 1, "FailJob"),
        (False, 2, "FailJob"),
        (False, 137, "Count"),
        (False, 134, "Count"),
    ],
)
def test_only_what_the_trial_itself_ended_with_fails_the_job(sweep, disrupted, code, action):
    (document,) = make(sweep, restarts=3).manifest(train_job(sweep, TRIALS[0]), "jaxdl-s-0001-abc", "research")
    found = "Count"
    for rule in document["spec"]["podFailurePolicy"]["rules"]:  # the first that fits, as the Job controller has it
        if (disrupted and "onPodConditions" in rule) or code in rule.get("onExitCodes", {}).get("values", ()):
            found = rule["action"]
            break
    assert found == action
    assert document["spec"]["backoffLimit"] == 3
    assert document["spec"]["template"]["spec"]["restartPolicy"] == "Never"  # which a podFailurePolicy needs


def test_the_hosts_of_a_slice_find_each_other(sweep, monkeypatch):
    name = "jaxdl-s-0001-abc"
    job, service = make(sweep, **VARIANTS["tpu_slice"]).manifest(train_job(sweep, TRIALS[0]), name, "research")
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 8
    assert job["spec"]["completionMode"] == "Indexed"
    pod = job["spec"]["template"]["spec"]
    assert pod["subdomain"] == service["metadata"]["name"] == name
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}

    from jaxdl import sharding

    joined = {}
    monkeypatch.setattr(sharding, "_initialize", lambda **given: joined.update(given))
    for variable in pod["containers"][0]["env"]:
        if "valueFrom" in variable:
            assert "job-completion-index" in variable["valueFrom"]["fieldRef"]["fieldPath"]
        monkeypatch.setenv(variable["name"], variable.get("value", "5"))
    sharding.initialize_distributed(None, None, None)
    assert joined == {"coordinator_address": f"{name}-0.{name}:8476", "num_processes": 8, "process_id": 5}


def test_names_are_dns_labels_and_never_come_again(sweep, cluster):
    executor = start(sweep, trials=[Trial("x" * 110, {"seed": "1"}), *TRIALS], hosts=12)
    executor.start(executor.jobs(TRIALS[:1]))
    names = job_names(cluster)
    assert len(set(names)) == 4
    for name in names:
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)
        assert len(f"{name}-11") <= 63  # the host name of a pod


@pytest.mark.parametrize("value", ['it\'s $(HOME) `id` "x"', "a b", "(64,64)"])
def test_values_reach_the_command_as_they_are(sweep, cluster, value):
    start(sweep, trials=[Trial("t", {"model.widths": value})])
    (name,) = job_names(cluster)
    command = cluster.objects["jobs"][name]["spec"]["template"]["spec"]["containers"][0]["command"]
    entries = pathlib.Path(command[-1].removeprefix("--jobs="))
    assert command[:-1] == ["python3", "-m", "launch.executors.worker"]
    (entry,) = json.loads(entries.read_text())
    assert f"--model.widths={value}" in entry["command"] and entry["command"][:2] == ["/usr/bin/env", "python3"]
    assert entry["log"] == str(sweep.log("t"))


def test_the_container_becomes_the_run_of_its_host(sweep, cluster, tmp_path):
    interpreter = tmp_path / "bin" / "python3"  # runs the worker, and stands in for the run
    interpreter.parent.mkdir()
    lines = [f"#!{sys.executable}", "import os, sys", "if 'launch.executors.worker' in sys.argv:"]
    lines += ["    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])", "print(sys.argv[1:])", "sys.exit(75)"]
    interpreter.write_text("\n".join(lines))
    interpreter.chmod(0o755)
    job = start(sweep, trials=TRIALS[:1], hosts=2).jobs(TRIALS[:1])[0]
    (name,) = job_names(cluster)
    command = cluster.objects["jobs"][name]["spec"]["template"]["spec"]["containers"][0]["command"]
    path = f"{interpreter.parent}:{os.environ['PATH']}"
    for index in ("0", "1"):
        environment = {**os.environ, "PATH": path, "JOB_COMPLETION_INDEX": index}
        run = subprocess.run(command, env=environment, capture_output=True)
        assert run.returncode == 75 and not run.stdout + run.stderr
    told = f"{list(job.command[1:])}\n"
    assert job.log.read_text() == job.log.with_name(f"{job.log.stem}.host1.log").read_text() == told


def test_no_variable_in_a_path_is_replaced(tmp_path):
    sweep = SweepDirectory(tmp_path / "volume" / "$(HOME)")
    command = pod_of(sweep)["containers"][0]["command"]
    assert "/$$(HOME)/" in command[-1]


def test_nothing_of_the_environment_is_written(sweep, cluster, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "s3cret-of-the-environment")
    start(sweep, env_from_secret=("wandb",))
    written = [path.read_text() for path in (sweep.path / "kubernetes").iterdir()]
    assert written and not any("s3cret" in text for text in [*written, json.dumps(cluster.requests)])
    assert "secretRef" in "".join(written)


# Jobs in a cluster.


def test_what_is_written_is_what_was_applied_and_previewed(sweep, cluster):
    jobs = [train_job(sweep, trial) for trial in TRIALS]
    previewed = make(sweep, hosts=2, namespace="research").preview(jobs)
    start(sweep, hosts=2, namespace="research")
    files = sorted((sweep.path / "kubernetes").glob("*.yaml"))
    quoted = [f"'--filename={file}'" for file in files]
    assert not any("&id" in file.read_text() for file in files)
    assert previewed == [f"kubectl create --namespace=research {file}" for file in quoted]
    posted = [body for method, path, _, body in cluster.requests if method == "POST" and "reviews" not in path]
    for body in posted:
        if body["kind"] == "Service":  # the cluster deletes it with its Job
            owner = body["metadata"].pop("ownerReferences")[0]
            assert owner["uid"] == f"uid-of-{body['metadata']['name']}"
    assert posted == [document for file in files for document in yaml.safe_load_all(file.read_text())]


def test_jobs_are_queued_run_and_end(sweep, cluster):
    executor = start(sweep)
    first, second = job_names(cluster)
    assert executor.held() == {trial.name: "queued" for trial in TRIALS} and executor.poll() == {}
    cluster.set_pod(first, phase="Running")
    cluster.set_pod(second, phase="Running")
    executor.poll()
    assert executor.held() == {trial.name: "running" for trial in TRIALS}
    cluster.end_job(first, "Complete")
    assert executor.poll() == {TRIALS[0].name: Ended(0)}
    assert executor.poll() == {} and list(executor.held()) == [TRIALS[1].name]
    assert job_names(cluster) == [second]  # an ended Job is cleared away


@pytest.mark.parametrize(
    "pods, ended",
    [
        ([{"code": 2, "reason": "Error"}], Ended(2)),
        ([{"code": 137, "reason": "OOMKilled"}], Ended(-9, "OOMKilled")),
        (
            [{"code": 1, "reason": "Error", "message": "a\nNo module named launch\n"}],
            Ended(1, "No module named launch"),
        ),
        ([{"code": 75}, {"code": 139}], Ended(-11)),
        (  # the host that failed first tells why
            [
                {"code": 134, "finishedAt": "2030-01-01T00:01:00Z"},
                {"code": 1, "finishedAt": "2030-01-01T00:00:00Z"},
            ],
            Ended(1),
        ),
        ([], Ended(None, "BackoffLimitExceeded")),
    ],
)
def test_how_a_failed_job_ended(sweep, cluster, pods, ended):
    executor = start(sweep, trials=TRIALS[:1])
    (name,) = job_names(cluster)
    for index, pod in enumerate(pods):
        cluster.set_pod(name, index, **pod)
    cluster.end_job(name, "Failed", "BackoffLimitExceeded")
    assert executor.poll() == {TRIALS[0].name: ended}


def test_an_image_that_is_not_there_is_a_failure_at_once(sweep, cluster):
    executor = start(sweep, trials=TRIALS[:1])
    waiting = {"reason": "ImagePullBackOff", "message": "no such image"}
    cluster.set_pod(*job_names(cluster), phase="Pending", waiting=waiting)
    assert executor.poll() == {TRIALS[0].name: Ended(1, "ImagePullBackOff: no such image")}
    assert job_names(cluster) == []


def test_stop_asks_the_pods_to_save(sweep, cluster):
    executor = start(sweep)
    first, second = job_names(cluster)
    executor.stop([TRIALS[0].name])
    method, path, query, _ = cluster.requests[-1]
    assert (method, path.rpartition("/")[2], query["propagationPolicy"]) == ("DELETE", first, "Foreground")
    assert executor.poll() == {TRIALS[0].name: Ended(None, "its Job was deleted")}
    executor.stop()
    assert job_names(cluster) == [] and list(executor.poll()) == [TRIALS[1].name] and not executor.held()


def test_a_job_whose_pods_are_saving_has_not_ended(sweep, cluster):
    executor = start(sweep, trials=TRIALS[:1])
    (name,) = job_names(cluster)
    cluster.objects["jobs"][name]["metadata"]["deletionTimestamp"] = "2030-01-01T00:00:00Z"
    assert executor.poll() == {} and list(executor.held()) == [TRIALS[0].name]


def test_the_next_command_finds_the_jobs(sweep, cluster):
    start(sweep)
    other = SweepDirectory(sweep.path.parent / "other")
    other.open()
    start(other, trials=TRIALS[:1])
    again = make(sweep)
    again.open(sweep, 5)
    assert list(again.held()) == [trial.name for trial in TRIALS] and again.room() == 3
    other.close()


def test_looking_from_beside_ends_nothing(sweep, cluster):
    executor = start(sweep, trials=TRIALS[:1])
    cluster.end_job(*job_names(cluster), "Complete")
    make(sweep).open(sweep, None)  # as --status does
    assert executor.poll() == {TRIALS[0].name: Ended(0)}


@pytest.mark.parametrize("trouble", [429, 500, 503, 504, "lost"])
def test_what_passes_by_itself_is_no_end(sweep, cluster, trouble):
    executor = start(sweep, trials=TRIALS[:1])
    cluster.troubles = [trouble]
    assert executor.poll() == {} and list(executor.held()) == [TRIALS[0].name]
    assert executor.poll() == {} and list(executor.held()) == [TRIALS[0].name]


@pytest.mark.parametrize("trouble", [503, "lost"])
def test_a_create_whose_answer_was_lost_makes_one_job(sweep, cluster, trouble):
    executor = make(sweep, hosts=2)
    executor.open(sweep, None)
    cluster.troubles = [trouble, None, trouble]
    executor.start(executor.jobs(TRIALS[:1]))
    assert len(job_names(cluster)) == len(cluster.objects["services"]) == 1


def test_a_cluster_that_refuses(sweep, cluster):
    executor = make(sweep)
    executor.open(sweep, None)
    cluster.troubles = [403]
    with pytest.raises(RunError, match=r"refuses the Job .*told by the server \(403\)\.$"):
        executor.start(executor.jobs(TRIALS))
    cluster.troubles = [503, 503, 503]
    with pytest.raises(RunError, match="does not answer: told by the server"):
        executor.start(executor.jobs(TRIALS))
    cluster.troubles = [401]
    with pytest.raises(RunError, match="refuses"):
        executor.poll()


# What is missing.


@pytest.mark.parametrize(
    "flags, told",
    [
        ({"image": ""}, "--kubernetes.image="),
        ({"claim": ""}, "--kubernetes.claim="),
        ({"mount": "/elsewhere"}, "does not lie under --kubernetes.mount=/elsewhere"),
        ({"gpus": 1, "tpu_type": "t", "tpu_topology": "2x2"}, "exclude each other"),
        ({"tpu_type": "t"}, "go together"),
        ({"tpu_type": "t", "tpu_topology": "four"}, "expected 4x4"),
        ({"tpu_type": "t", "tpu_topology": "2x3"}, "6 chips"),
        ({"tpu_type": "t", "tpu_topology": "4x4", "hosts": 2}, "has 4; leave the flag out"),
        ({"node_selector": ("gpu",)}, "expected KEY=VALUE"),
        ({"tolerations": ("key:Never",)}, "NoSchedule"),
        ({"claim": "missing"}, "--kubernetes.claim=missing: there is none in namespace research"),
        ({"service_account": "missing"}, "--kubernetes.service_account=missing: there is none"),
        ({"namespace": "missing", "claim": "missing"}, "no namespace missing"),
        ({"context": "there"}, "no cluster: .*there"),
    ],
)
def test_wrong_flags_are_told_in_one_line(sweep, cluster, flags, told):
    with pytest.raises(InputError, match=told) as error:
        make(sweep, **flags).open(sweep, None)
    assert "\n" not in str(error.value)


def test_a_cluster_that_cannot_be_used_is_told_in_one_line(sweep, cluster, tmp_path, monkeypatch):
    cluster.denied = {("create", "services")}
    make(sweep).open(sweep, None)  # which one host does not need
    with pytest.raises(InputError, match="you may not create services in namespace research"):
        make(sweep, hosts=2).open(sweep, None)
    cluster.troubles = [401]
    with pytest.raises(InputError, match="logged in"):
        make(sweep).open(sweep, None)
    write_kubeconfig(tmp_path / "kubeconfig", 9)
    with pytest.raises(InputError, match="http://127.0.0.1:9 does not answer") as error:
        make(sweep).open(sweep, None)
    assert "\n" not in str(error.value)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nothing"))
    with pytest.raises(InputError, match="no cluster: .*kubectl config get-contexts"):
        make(sweep).open(sweep, None)


def test_without_the_client_it_is_told_what_to_install(sweep, monkeypatch):
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    monkeypatch.delitem(sys.modules, "launch.executors.kubernetes_cluster")
    with pytest.raises(InputError, match=r"pip install -e '\.\[kubernetes\]'"):
        make(sweep).open(sweep, None)


def test_the_sweep_command_does_not_wait_for_the_client():
    code = "import sys, launch.executors.kubernetes; sys.exit(bool({'kubernetes', 'jax'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
