"""From nothing: one `helm install` into a restricted namespace, its test, its notes' commands, who reaches what."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest
import yaml

from installation import QUICKSTART, Installation
from kubernetes_cluster import CHART, ROOT, Kubernetes, environment, forwarded, run
from monitored import GPUS, alerts, panels, prometheus
from polling import until

RELEASE = "epochal"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")


@pytest.fixture(scope="module", autouse=True)
def installed(kubernetes: Kubernetes, namespace: str) -> Iterator[Installation]:
    with Installation(kubernetes, namespace) as installation:
        print(f"helm install --wait took {installation.seconds:.0f} s")
        yield installation
        installation.uninstall()


def test_everything_is_ready_on_two_nodes(kubernetes: Kubernetes, namespace: str) -> None:
    pods = kubernetes.get(namespace, "pods")["items"]
    running = [pod for pod in pods if pod["status"]["phase"] != "Succeeded"]
    assert len(running) == 7, [pod["metadata"]["name"] for pod in pods]
    for pod in running:
        assert all(one["ready"] and not one["restartCount"] for one in pod["status"]["containerStatuses"]), pod
        assert all(one["ready"] for one in pod["status"].get("initContainerStatuses", [])), pod
    workers = [pod for pod in running if pod["metadata"]["labels"].get("epochal.io/role") == "worker"]
    assert len({pod["spec"]["nodeName"] for pod in workers}) == 2


def test_helm_test_passes(kubernetes: Kubernetes, namespace: str) -> None:
    said = kubernetes.helm("test", RELEASE, "--namespace", namespace, "--logs", "--timeout", "10m")
    assert "takes the token" in said
    assert "takes the password" in said
    assert "SUCCEEDED" in said
    assert "FINISHED" in said


def test_the_commands_of_the_notes_train(kubernetes: Kubernetes, namespace: str) -> None:
    notes = kubernetes.helm("get", "notes", RELEASE, "--namespace", namespace)
    commands = re.findall(r"^  (.+)$", notes[notes.index("Sign in") : notes.index("Give others")], re.MULTILINE)
    assert [line.split()[0] for line in commands] == ["kubectl", "kubectl", "epochal"]
    # A person takes longer to type the next line than a port takes to be forwarded.
    listens = "until (exec 3<>/dev/tcp/127.0.0.1/8700) 2>/dev/null; do sleep 0.2; done"
    script = "\n".join(["trap 'kill $(jobs -p)' EXIT", commands[0], listens, *commands[1:]])
    typed = subprocess.run(
        ["bash", "-ec", script], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert typed.returncode == 0, typed.stdout + typed.stderr
    assert "SUCCEEDED" in typed.stdout + typed.stderr


@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Chromium and its driver")
def test_a_browser_shows_the_job_and_its_run(installed: Installation, tmp_path: Path) -> None:
    """Ours, and by its link MLflow's, which asks for the password."""
    from chromium import Page

    job = installed.succeeded(installed.client.submit(QUICKSTART, key="shown").id)
    known = installed.variables
    user = f"{known['MLFLOW_TRACKING_USERNAME']}:{known['MLFLOW_TRACKING_PASSWORD']}@"
    with closing(Page(str(CHROMIUM), str(DRIVER), tmp_path / "chromium")) as page:
        page.open(known["EPOCHAL_SERVER"], known["EPOCHAL_TOKEN"], job.id)
        page.wait(
            lambda: page.text("#job-title") == "quickstart" and "SUCCEEDED" in page.text("body").upper(), "it", 60
        )
        page.shoot("kubernetes-job")
        (run,) = {one.get_attribute("href") for one in page.all(f"#job-details a[href*='{job.run_id}']")}
        assert str(run).startswith(known["MLFLOW_TRACKING_URI"])
        page.driver.get(known["MLFLOW_TRACKING_URI"].replace("//", f"//{user}", 1))
        page.driver.get(str(run))  # of a page whose address has a password in it Chromium lets no script ask anything
        page.wait(lambda: job.run_id in page.text("body") and "val/accuracy" in page.text("body"), "the run", 120)
        page.shoot("kubernetes-run")


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Prometheus")
def test_a_prometheus_finds_all_that_dashboards_and_alerts_ask_for(
    kubernetes: Kubernetes, namespace: str, installed: Installation, tmp_path: Path
) -> None:
    """By forwarded ports; in the cluster a ServiceMonitor and a PodMonitor have the Prometheus operator find them."""
    token = installed.secret("epochal-tokens", "prometheus")
    pods = kubernetes.get(namespace, "pods", "--selector", "epochal.io/role in (head, worker)")["items"]
    with ExitStack() as stack:
        nodes = [stack.enter_context(forwarded(namespace, f"pod/{pod['metadata']['name']}", 8080)) for pod in pods]
        read = {"epochal": [installed.client.server], "ray": nodes}
        watching = stack.enter_context(prometheus(tmp_path, read, token))
        # Waits are told of as they grow: the job's has to come after the first look.
        until(lambda: watching.has('up{job="epochal"}'), "the server is read")
        long = ("train.epochs=30000", "checkpoint.every=20ep")
        job = installed.client.submit(QUICKSTART, long, key="monitored")
        stack.callback(installed.client.stop, job.id)
        watching.until_all_have_data([*panels("fleet", GPUS), *panels("job"), *alerts(GPUS)], job.id)
        assert watching.ask("query", query="min(up)")["result"][0]["value"][1] == "1"
        assert len(watching.ask("query", query="ray_node_cpu_utilization")["result"]) == len(pods)


REACH = """
import json, socket, time, urllib.error, urllib.request
time.sleep(15)  # what enforces policies has to hear of a new pod first
def reach(host, port):
    try:
        socket.create_connection((host, port), 5).close()
        return "open"
    except OSError as error:
        return type(error).__name__
def ask(url):
    try:
        return urllib.request.urlopen(url, timeout=5).status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError as error:
        return type(error).__name__
places = {
    "gcs": ("epochal-head-svc", 6379), "dashboard": ("epochal-head-svc", 8265), "client": ("epochal-head-svc", 10001),
    "ray metrics": ("epochal-head-svc", 8080), "postgresql": ("epochal-postgresql", 5432),
    "mlflow": ("epochal-mlflow", 5000), "server": ("epochal-server", 8700),
}
urls = {name: ask("http://epochal-server:8700" + path) for name, path in (
    ("jobs", "/api/v1/jobs"), ("metrics", "/metrics"), ("health", "/healthz"))}
print(json.dumps({name: reach(*place) for name, place in places.items()} | urls))
"""


def test_a_strange_pod_reaches_the_server_alone(kubernetes: Kubernetes, namespace: str) -> None:
    found = json.loads(kubernetes.python(namespace, "stranger", REACH))
    assert {name for name, what in found.items() if what == "open"} == {"server"}
    assert (found["jobs"], found["metrics"], found["health"]) == (401, 401, 200)
    labels = "app.kubernetes.io/name=epochal,app.kubernetes.io/instance=epochal,app.kubernetes.io/component=mlflow-gc"
    friend = json.loads(kubernetes.python(namespace, "friend", REACH, labels))
    opened = {name for name, what in friend.items() if what == "open"}
    assert opened == {"server", "postgresql", "mlflow"}, "the same script reaches what it may"


LOOK = """
import json, os
from pathlib import Path

def look():
    names, processes = set(), []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            entries = (process / "environ").read_bytes().split(b"\\0")
            processes.append((process / "cmdline").read_bytes().replace(b"\\0", b" ").decode())
        except OSError:
            continue
        names |= {one.partition(b"=")[0].decode() for one in entries}
    account = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
    return {
        "tokens": sorted(names & {"EPOCHAL_TOKEN", "MLFLOW_TRACKING_PASSWORD", "RAY_AUTH_TOKEN"}),
        "account": account.exists(),
        "storage": sorted(os.listdir("/var/lib/epochal")) if os.path.isdir("/var/lib/epochal") else [],
        "agent": any("epochal agent" in one for one in processes),
    }
"""

IN_A_TASK = (
    LOOK
    + """
import sys, ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On
ray.init(address="auto", log_to_driver=False, logging_level=50)
node = next(one["NodeID"] for one in ray.nodes() if one["Alive"] and one["NodeManagerAddress"] == sys.argv[1])
print(json.dumps(ray.get(ray.remote(num_cpus=0)(look).options(scheduling_strategy=On(node, soft=False)).remote())))
"""
)


def test_code_of_a_job_finds_no_token_beside_the_agent(kubernetes: Kubernetes, namespace: str) -> None:
    """By Ray's token, which each worker has, it can run on the agent's node."""

    def python(pod: str, container: str, script: str, *arguments: str) -> dict[str, object]:
        command = ("exec", pod, "--container", container, "--", "python", "-c", script, *arguments)
        found: dict[str, object] = json.loads(kubernetes.kubectl("--namespace", namespace, *command).splitlines()[-1])
        return found

    pods = kubernetes.get(namespace, "pods", "--selector", "epochal.io/role in (agent, worker)")["items"]
    by_role = {pod["metadata"]["labels"]["epochal.io/role"]: pod for pod in pods}
    names = {role: pod["metadata"]["name"] for role, pod in by_role.items()}
    beside = python(names["worker"], "ray-worker", IN_A_TASK, by_role["agent"]["status"]["podIP"])
    assert beside == {"tokens": ["RAY_AUTH_TOKEN"], "account": False, "storage": [], "agent": False}
    agent = python(names["agent"], "agent", f"{LOOK}\nprint(json.dumps(look()))")
    assert agent == {
        "tokens": ["EPOCHAL_TOKEN", "MLFLOW_TRACKING_PASSWORD", "RAY_AUTH_TOKEN"], "account": True,
        "storage": ["datasets", "server"], "agent": True,
    }, "the same look finds what is there"  # fmt: skip
    worker = python(names["worker"], "ray-worker", f"{LOOK}\nprint(json.dumps(look()))")
    assert (worker["storage"], worker["account"]) == (["datasets", "server"], False)
    assert "EPOCHAL_TOKEN" not in str(worker["tokens"])


def test_accounts_may_do_what_the_docs_say(kubernetes: Kubernetes, namespace: str) -> None:
    def may(account: str, verb: str, what: str) -> bool:
        who = f"system:serviceaccount:{namespace}:{account}"
        command = ("kubectl", "auth", "can-i", verb, what, "--namespace", namespace, "--as", who)
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment())
        return done.stdout.strip() == "yes"

    agent = {(verb, what) for verb in ("get", "list", "patch", "create", "delete") for what in (
        "rayclusters.ray.io/epochal", "rayclusters.ray.io/other", "pods", "secrets", "deployments"
    ) if may("epochal-agent", verb, what)}  # fmt: skip
    assert agent == {
        ("get", "rayclusters.ray.io/epochal"), ("patch", "rayclusters.ray.io/epochal"), ("list", "pods"),
    }  # fmt: skip
    for account in ("default", "epochal-cluster"):
        assert not may(account, "list", "pods"), f"{account}: the hook's rights went with it"
        assert not may(account, "get", "secrets")


def test_no_secret_is_shown(kubernetes: Kubernetes, namespace: str) -> None:
    values = [
        run("base64", "--decode", stdin=value)
        for one in kubernetes.get(namespace, "secrets")["items"]
        if one["type"] == "Opaque"
        for key, value in one["data"].items()
        if key != "username"
    ]
    assert len(values) >= 8
    kinds = "pods,deployments,statefulsets,configmaps,rayclusters,events,jobs"
    shown = kubernetes.kubectl("--namespace", namespace, "get", kinds, "--output", "yaml")
    for pod in kubernetes.get(namespace, "pods")["items"]:
        shown += kubernetes.kubectl("--namespace", namespace, "logs", "--all-containers", pod["metadata"]["name"])
        if pod["status"]["phase"] == "Running":
            arguments = "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"
            name = pod["metadata"]["name"]
            shown += kubernetes.kubectl("--namespace", namespace, "exec", name, "--", "sh", "-c", arguments)
    assert "epochal" in shown
    assert not [value[:4] for value in values if value in shown]


def test_a_cluster_without_kuberay_is_told_of_it(kubernetes: Kubernetes) -> None:
    """As Helm sees one: it knows kinds of objects, and RayCluster is not among them."""
    kind = CHART / "ci" / "kind-values.yaml"
    command = ["template", RELEASE, str(CHART), "--values", str(kind), "--kube-version", "1.34"]
    with pytest.raises(AssertionError, match="KubeRay's operator is not installed") as refused:
        kubernetes.helm(*command, "--api-versions", "v1/Pod")
    assert "helm install kuberay-operator" in str(refused.value)
    assert "kind: Deployment" in kubernetes.helm(*command, "--api-versions", "v1/Pod,ray.io/v1/RayCluster")


def test_the_api_server_takes_every_object(kubernetes: Kubernetes, namespace: str) -> None:
    for values in sorted((CHART / "ci").glob("*-values.yaml")):
        rendered = kubernetes.helm("template", "other", str(CHART), "--values", str(values), "--kube-version", "1.34")
        objects = [one for one in yaml.safe_load_all(rendered) if one and "monitoring" not in one["apiVersion"]]
        assert len(objects) > 15
        kubernetes.kubectl(
            "--namespace", namespace, "apply", "--dry-run=server", "--filename", "-", stdin=yaml.safe_dump_all(objects)
        )


def test_drained_nodes_take_one_worker_at_a_time(installed: Installation) -> None:
    workers = [pod["metadata"]["name"] for pod in installed.pods("epochal.io/role=worker")]

    def evict(pod: str) -> None:
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
        where = f"/api/v1/namespaces/{installed.namespace}/pods/{pod}/eviction"
        installed.kubectl("create", "--raw", where, "--filename", "-", stdin=json.dumps(eviction))

    evict(workers[0])
    with pytest.raises(AssertionError, match="would violate the pod's disruption budget"):
        evict(workers[1])

    def replaced() -> bool:
        ready = {
            pod["metadata"]["name"]
            for pod in installed.pods("epochal.io/role=worker")
            if all(one["ready"] for one in pod["status"]["containerStatuses"])
        }
        return len(ready) == 2 and workers[0] not in ready

    until(replaced, "another worker")


def test_an_upgrade_loses_no_job(installed: Installation) -> None:
    """The server is made anew, and nothing that trains notices."""
    job = installed.begun()
    installed.install("--set", "server.retain={logs=30d}")
    assert installed.succeeded(job).epoch == 1


UPGRADE_PAGE = ROOT / "platform" / "docs" / "how-to" / "upgrade-on-kubernetes.md"


def test_a_backup_is_restored_by_the_pages_commands(
    kubernetes: Kubernetes, namespace: str, installed: Installation, tmp_path: Path
) -> None:
    """What came after the dump is gone, what was there is there again, in both databases."""
    section = UPGRADE_PAGE.read_text(encoding="utf-8").partition("## Back up and restore")[2].partition("\n## ")[0]
    backup, stop, script, start = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)

    def typed(commands: str) -> str:
        here = commands.replace("--namespace epochal", f"--namespace {namespace}")
        done = subprocess.run(
            ["bash", "-ec", here], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=600,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    (date,) = set(re.findall(r"ledger-(\S+)\.dump", typed(backup)))
    before = installed.jobs
    later = installed.client.submit(QUICKSTART, ("priority=0",), key="later").id
    installed.succeeded(later)
    typed(stop)
    job = yaml.safe_load((tmp_path / "restore.yaml").read_text())
    job["spec"]["template"]["spec"]["containers"][0]["command"][2] = script.replace("DATE", date)
    (tmp_path / "restore.yaml").write_text(yaml.safe_dump(job))
    typed(start)
    for name in ("epochal-server", "epochal-mlflow", "epochal-agent"):
        kubernetes.kubectl("--namespace", namespace, "rollout", "status", f"deployment/{name}", "--timeout=280s")
    assert installed.jobs == before, "the one that came later is gone"
    runs = {installed.client.job(job_id).run_id for job_id in before}

    def found() -> set[str]:
        with suppress(AssertionError):  # the port is forwarded anew
            return {one["id"] for one in json.loads(installed.epochal("runs", "list", "-o", "json"))}
        return set()

    until(lambda: found() == runs, "MLflow has the runs of before", 60)


def test_a_cluster_of_another_name_takes_the_place_of_the_one_before(
    kubernetes: Kubernetes, namespace: str, installed: Installation
) -> None:
    def clusters() -> set[str]:
        return {one["metadata"]["name"] for one in kubernetes.get(namespace, "rayclusters")["items"]}

    installed.install("--set", "cluster.name=other")
    assert clusters() == {"other"}
    installed.succeeded(installed.asked(lambda: installed.client.submit(QUICKSTART, key="on the other")).id)
    installed.install("--set", "cluster.enabled=false")
    assert clusters() == set()
    installed.install()
    assert clusters() == {"epochal"}


def test_what_is_removed_comes_back_with_its_jobs(
    kubernetes: Kubernetes, namespace: str, installed: Installation
) -> None:
    job, before = installed.begun(), installed.jobs
    installed.uninstall()
    kinds = "deployments,statefulsets,rayclusters,services,networkpolicies,roles,rolebindings,jobs,cronjobs"
    until(lambda: not kubernetes.get(namespace, kinds)["items"], "all that was installed is gone", 60)
    kept = {one["metadata"]["name"] for one in kubernetes.get(namespace, "secrets,persistentvolumeclaims")["items"]}
    assert kept == {
        "epochal-tokens", "epochal-mlflow", "epochal-postgresql", "epochal-storage", "epochal-backup",
        "data-epochal-postgresql-0",
    }  # fmt: skip
    installed.install()
    assert installed.succeeded(job).epoch == 2
    assert before <= installed.jobs
