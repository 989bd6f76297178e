"""The chart, for every `helm/epochal/ci/*-values.yaml`: rendered and linted by Helm's engine, valid, and safe."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python as helm
import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator

import chart_files
from epochal.cluster.load import load_cluster_spec
from epochal.cluster.manifests import manifests

ROOT = Path(__file__).parents[2]
CI = sorted((chart_files.CHART / "ci").glob("*-values.yaml"))
RAY_CLUSTER = Draft202012Validator(json.loads((Path(__file__).parent / "raycluster.json").read_text()))
MONITORING = "monitoring.coreos.com/v1"
"""Of the Prometheus operator, whose schemas are not here."""
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, where PyYAML was built with it: many times faster

Object = dict[str, Any]


@pytest.fixture(scope="session")
def chart() -> Any:
    return helm.Chart.load(chart_files.CHART)


def render(chart: Any, values: Object, namespace: str = "training", name: str = "epochal") -> dict[str, str]:
    rendered: dict[str, str] = chart.render(values, name=name, namespace=namespace)
    return rendered


def objects_of(rendered: dict[str, str]) -> list[Object]:
    texts = [text for name, text in rendered.items() if not name.endswith(".txt")]
    return [one for text in texts for one in yaml.load_all(text, _LOADER) if one]


@pytest.fixture(scope="module", params=CI, ids=lambda path: path.stem.removesuffix("-values"))
def values(request: pytest.FixtureRequest) -> Object:
    loaded: Object = yaml.safe_load(request.param.read_text())
    return loaded


@pytest.fixture(scope="module")
def objects(chart: Any, values: Object, tmp_path_factory: pytest.TempPathFactory) -> list[Object]:
    """What the chart installs, and what its hook then applies."""
    found = objects_of(render(chart, values))
    (spec,) = [one["data"]["cluster.yaml"] for one in found if "cluster.yaml" in one.get("data", {})]
    file = tmp_path_factory.mktemp("cluster") / "cluster.yaml"
    file.write_text(spec)
    return found + manifests(load_cluster_spec(file), "training")


def within(node: Any, key: str) -> Iterator[Object]:
    """Every mapping below that has the key."""
    if isinstance(node, dict):
        if key in node:
            yield node
        for child in node.values():
            yield from within(child, key)
    elif isinstance(node, list):
        for child in node:
            yield from within(child, key)


def containers(objects: list[Object]) -> list[Object]:
    return [one for pod in within(objects, "containers") for one in pod["containers"] + pod.get("initContainers", [])]


def test_there_are_values_to_try() -> None:
    assert {path.stem for path in CI} == {"kind-values", "production-values", "air-gapped-values"}


def test_helm_finds_nothing_to_complain_of(values: Object) -> None:
    found = helm.lint(chart_files.CHART, values, strict=True, kube_version="v1.34.0")
    told = [one for one in found["messages"] if "icon" not in str(one)]
    assert not told


def test_objects_are_valid(objects: list[Object]) -> None:
    for one in objects:
        if one["kind"] == "RayCluster":
            RAY_CLUSTER.validate(one["spec"])
        elif one["apiVersion"] != MONITORING:
            kubernetes_validate.validate(one, "1.34", strict=True)
    names = [(one["kind"], one["metadata"]["name"]) for one in objects]
    assert len(names) == len(set(names)), "the chart and the cluster that it applies have names of their own"


def test_pods_pass_the_restricted_standard(objects: list[Object]) -> None:
    pods = list(within(objects, "containers"))
    assert len(pods) >= 8
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert all("hostPath" not in volume for volume in pod.get("volumes", []))
        assert pod["enableServiceLinks"] is False
    for container in containers(objects):
        own = container["securityContext"]
        assert own == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_every_container_asks_for_what_it_needs_and_is_of_one_version(objects: list[Object]) -> None:
    for container in containers(objects):
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert "memory" in container["resources"]["limits"]
        image = container["image"].rpartition("/")[2]
        assert ":" in image
        assert not image.endswith(":latest")


def test_what_may_ask_kubernetes_is_the_agent_and_a_hook(objects: list[Object]) -> None:
    """The agent alone of its pod's containers, so that nothing is mounted into all of them."""
    for one in objects:
        is_hook = "helm.sh/hook" in one["metadata"].get("annotations", {})
        for pod in within(one, "containers"):
            assert pod["automountServiceAccountToken"] is (is_hook and "serviceAccountName" in pod)
            asks = one["metadata"]["name"].endswith("-agent")
            assert bool(list(within(pod.get("volumes", []), "serviceAccountToken"))) is asks
    assert not [one for one in objects if one["kind"].startswith("Cluster")], "no right goes beyond the namespace"
    rights = [one for one in objects if one["kind"] in ("Role", "RoleBinding")]
    assert {"helm.sh/hook" in one["metadata"].get("annotations", {}) for one in rights} == {True, False}


def test_a_cluster_that_is_wanted_no_more_is_deleted(chart: Any) -> None:
    """By what it is a part of, whatever its name was; the rights for that come and go with the hook."""

    def hooks(**cluster: Any) -> tuple[dict[str, str], dict[str, str]]:
        found = objects_of(render(chart, {**IMAGE, "cluster": cluster}))
        asked = {
            one["metadata"]["name"]: one["metadata"]["annotations"]["helm.sh/hook"]
            for one in found
            if one["metadata"]["name"].startswith("epochal-cluster") and one["kind"] != "ConfigMap"
        }
        jobs = {one["metadata"]["name"]: one for one in found if one["kind"] == "Job"}
        return asked, {name: json.dumps(one["spec"]) for name, one in jobs.items() if name in asked}

    asked, jobs = hooks(name="other")
    assert asked["epochal-cluster-apply"] == "post-install,post-upgrade,post-rollback"
    assert asked["epochal-cluster-delete"] == "pre-delete"
    assert "--prune" in jobs["epochal-cluster-apply"]
    assert asked["epochal-cluster"] == f"{asked['epochal-cluster-apply']},{asked['epochal-cluster-delete']}"
    asked, jobs = hooks(enabled=False)
    assert asked == dict.fromkeys(("epochal-cluster", "epochal-cluster-delete"), "post-upgrade,post-rollback")
    assert "delete --part-of epochal --yes" in jobs["epochal-cluster-delete"]


def test_who_asks_the_database_knows_its_authority(chart: Any) -> None:
    values = yaml.safe_load((chart_files.CHART / "ci" / "production-values.yaml").read_text())
    values["database"]["caSecret"] = "authority"
    asking = [
        (pod, container)
        for pod in within(objects_of(render(chart, values)), "containers")
        for container in pod["containers"] + pod.get("initContainers", [])
        if any(one["name"] in ("PGPASSWORD", "LEDGER_PASSWORD") for one in container["env"])
    ]
    assert len(asking) >= 7
    for pod, container in asking:
        assert {"name": "PGSSLROOTCERT", "value": "/etc/epochal/database/ca.crt"} in container["env"]
        (mount,) = [one for one in container["volumeMounts"] if one["mountPath"] == "/etc/epochal/database"]
        (volume,) = [one for one in pod["volumes"] if one["name"] == mount["name"]]
        assert volume["secret"]["secretName"] == "authority"


def test_nobody_is_let_in_from_outside_by_default(objects: list[Object]) -> None:
    types = [one["spec"].get("type", "ClusterIP") for one in objects if one["kind"] == "Service"]
    types += [one["serviceType"] for one in within(objects, "serviceType")]
    assert set(types) == {"ClusterIP"}


def test_a_secret_is_in_secrets_alone(chart: Any, values: Object) -> None:
    """Where none is given each installation has passwords of its own, and no other object has one of them."""
    first, second = (objects_of(render(chart, values)) for _ in range(2))
    made = [
        {one["metadata"]["name"]: one["data"] for one in found if one["kind"] == "Secret"} for found in (first, second)
    ]
    assert made[0].keys() == made[1].keys()
    for name, data in made[0].items():
        for key, value in data.items():
            assert (value == made[1][name][key]) == (key == "username"), (name, key)
    shown = [one for one in first if one["kind"] != "Secret"]
    for container in containers(shown):
        for variable in container["env"]:
            if any(word in variable["name"] for word in ("PASSWORD", "TOKEN", "SECRET", "_KEY")):
                assert "value" not in variable, variable
    for data in made[0].values():
        assert not any(value in json.dumps(shown) for key, value in data.items() if key != "username")


def test_secrets_of_ones_own_are_used_and_none_is_made(chart: Any) -> None:
    values = yaml.safe_load((chart_files.CHART / "ci" / "production-values.yaml").read_text())
    found = objects_of(render(chart, values))
    assert not [one for one in found if one["kind"] in ("Secret", "StatefulSet")]
    named = {one["secretKeyRef"]["name"] for one in within(found, "secretKeyRef")}
    assert {"epochal-tokens-of-vault", "epochal-mlflow-of-vault", "epochal-databases", "object-store"} <= named


def test_alerts_and_dashboards_are_those_of_the_repository(chart: Any) -> None:
    values = yaml.safe_load((chart_files.CHART / "ci" / "production-values.yaml").read_text())
    found = {one["kind"]: one for one in objects_of(render(chart, values)) if one["apiVersion"] == MONITORING}
    assert found.keys() == {"ServiceMonitor", "PodMonitor", "PrometheusRule"}
    rules = yaml.safe_load((ROOT / "dashboards" / "prometheus" / "rules.yaml").read_text())
    assert found["PrometheusRule"]["spec"] == rules
    (shown,) = [one for one in objects_of(render(chart, values)) if "grafana_dashboard" in one["metadata"]["labels"]]
    boards = {path.name: path.read_text() for path in (ROOT / "dashboards").glob("*.json")}
    assert {name: json.loads(text) for name, text in shown["data"].items()} == {
        name: json.loads(text) for name, text in boards.items()
    }


def test_mlflow_knows_its_names(chart: Any) -> None:
    from mlflow.server.security_utils import should_block_cors_request  # takes seconds

    values = yaml.safe_load((chart_files.CHART / "ci" / "production-values.yaml").read_text())
    values["mlflow"] |= {"page": "https://runs.example.com:8443/mlflow", "allowedHosts": ["runs.vpn:*"]}
    hosts, origins = (
        variable["value"].split(",")
        for container in containers(objects_of(render(chart, values)))
        for variable in container["env"]
        if variable["name"] in ("MLFLOW_SERVER_ALLOWED_HOSTS", "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS")
    )
    names = {"epochal-mlflow:*", "epochal-mlflow.training.svc:*", "localhost:*", "mlflow.example.com"}
    assert names | {"runs.example.com:8443", "runs.vpn:*"} <= set(hosts)
    for page in ("https://runs.example.com:8443", "https://mlflow.example.com", "http://runs.vpn:5000"):
        assert not should_block_cors_request(page, "POST", origins), page
    assert should_block_cors_request("https://elsewhere.example.com", "POST", origins)


def test_names_that_look_like_numbers_are_names(chart: Any) -> None:
    values = yaml.safe_load((chart_files.CHART / "ci" / "production-values.yaml").read_text())
    values |= {"fullnameOverride": "epochal", "tokens": {"existingSecret": "1e3"}, "storage": {"existingClaim": "123"}}
    values["image"]["pullSecrets"] = ["12"]
    values["mlflow"]["existingSecret"] = values["database"]["existingSecret"] = values["database"]["caSecret"] = "7"
    values["backup"] |= {"existingClaim": "8", "storageClass": "9"}
    values["ingress"] |= {"host": "*.example.com", "tlsSecret": "10", "className": "11"}
    for one in objects_of(render(chart, values, namespace="007", name="2026")):
        if one["apiVersion"] != MONITORING:
            kubernetes_validate.validate(one, "1.34", strict=True)


def test_no_storage_class_at_all_is_one_too(chart: Any) -> None:
    """As Kubernetes has it: a volume that somebody has made by hand, and none of the default class."""
    sections = ("storage", "database", "backup")
    for wanted in (None, ""):
        values = {**IMAGE, **{name: {"storageClass": wanted} for name in sections}}
        values["backup"] |= {"enabled": True}
        claims = list(within(objects_of(render(chart, values)), "accessModes"))
        assert len(claims) == 3
        assert [one.get("storageClassName") for one in claims] == [wanted] * 3


def test_who_reads_the_metrics_of_rays_nodes_is_let_in_whatever_else_is_open(chart: Any) -> None:
    """The cluster's own policy, which shuts everybody out, is there in any case."""
    who = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    found = objects_of(render(chart, {**IMAGE, "networkPolicy": {"enabled": False, "metricsFrom": who}}))
    (policy,) = [one for one in found if one["kind"] == "NetworkPolicy"]
    assert policy["spec"]["podSelector"] == {"matchLabels": {"epochal.io/cluster": "epochal"}}
    assert policy["spec"]["ingress"][0]["from"] == who


@pytest.mark.parametrize("name", ["1st", "team.epochal"])
def test_a_release_that_no_service_can_be_called_after_wants_a_name(chart: Any, name: str) -> None:
    with pytest.raises(helm.HelmError, match=f"fullnameOverride: .* {name}"):
        render(chart, IMAGE, name=name)
    assert render(chart, {**IMAGE, "fullnameOverride": "epochal"}, name=name)


def test_a_long_name_is_cut_to_one(chart: Any) -> None:
    found = objects_of(render(chart, IMAGE, name=f"{'a' * 38}--{'b' * 13}"))
    assert {one["metadata"]["name"].split("-")[0] for one in found} == {"a" * 38}
    for one in found:
        kubernetes_validate.validate(one, "1.34", strict=True)
        assert "--" not in one["metadata"]["name"]


IMAGE = {"image": {"name": "localhost/epochal:1"}}
EXISTING = {"existingSecret": "x"}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({}, "image.name: name the image"),
        ({"image": {"name": "epochal"}}, "epochal has no tag that stays the same: add one"),
        ({"image": {"name": "here:5000/epochal"}}, "5000/epochal has no tag"),
        ({"image": {"name": "epochal:latest"}}, "epochal:latest has no tag that stays the same: add one"),
        ({"image": {"name": "epochal:"}}, "epochal: has no tag that stays the same"),
        ({**IMAGE, "database": {"image": "postgres"}}, "database.image: postgres has no tag that stays the same"),
        ({**IMAGE, "sever": {}}, "sever"),
        ({**IMAGE, "database": {"ledgerUrl": "postgresql://a:secret@db/epochal"}}, "/database/ledgerUrl"),
        ({**IMAGE, "database": {"ledgerUrl": "postgresql://a@db/a", "existingSecret": "x"}}, "database.mlflowUrl"),
        (
            {**IMAGE, "database": {"ledgerUrl": "postgresql://a@db/a", "mlflowUrl": "postgresql://a@db/b"}},
            "database.existingSecret",
        ),
        (
            {**IMAGE, "database": dict.fromkeys(("ledgerUrl", "mlflowUrl"), "postgresql://a@db/a") | EXISTING},
            "database.mlflowUrl: postgresql://a@db/a is the ledger's database too, .* name another",
        ),
        (
            {**IMAGE, "database": EXISTING | {"ledgerUrl": "postgresql://a@db/a", "mlflowUrl": "postgresql://b@db:5432/a?x"}},
            "database.mlflowUrl: .* is the ledger's database too",
        ),
        ({**IMAGE, "storage": {"size": "much"}}, "/storage/size"),
        ({**IMAGE, "cluster": {"groups": [{"name": "cpu", "mni": 1}]}}, "mni"),
        ({**IMAGE, "cluster": {"groups": [{"name": "cpu", "cpus": 0.5}]}}, "/cluster/groups/0/cpus.*minimum"),
        ({**IMAGE, "cluster": {"head": {"memory": 4}}}, "/cluster/head/memory"),
        ({**IMAGE, "mlflow": {"workers": "two"}}, "/mlflow/workers"),
        ({**IMAGE, "ingress": {"enabled": True}}, "ingress.host: name the host"),
        (
            {**IMAGE, "ingress": {"enabled": True, "host": "a.example", "mlflowHost": "a.example"}},
            "ingress.mlflowHost: a.example is the server's name already",
        ),
    ],
    ids=[
        "no-image", "no-tag", "port", "latest", "empty", "postgres", "unknown", "password", "one-url", "no-secret",
        "one-database", "other-user", "size", "group", "part", "unit", "type", "host", "one-host",
    ],
)  # fmt: skip
def test_wrong_values_are_refused(chart: Any, wrong: Object, words: str) -> None:
    with pytest.raises(helm.HelmError, match=words):
        render(chart, wrong)


def test_generated_files_are_current() -> None:
    assert chart_files.SCHEMA.read_text() == chart_files.schema(), "run `make docs`"
    assert chart_files.README.read_text() == chart_files.readme(), "run `make docs`"


def test_the_chart_is_of_this_version() -> None:
    known = yaml.safe_load((chart_files.CHART / "Chart.yaml").read_text())
    project = (ROOT / "pyproject.toml").read_text()
    assert f'\nversion = "{known["version"]}"\n' in project
    assert known["appVersion"] == known["version"]


def test_notes_have_commands_that_are_there(chart: Any, values: Object) -> None:
    (notes,) = [text for name, text in render(chart, values).items() if name.endswith("NOTES.txt")]
    assert "epochal submit jobs/quickstart.yaml --wait" in notes
    assert "epochal login http" in notes
    assert (ROOT / "jobs" / "quickstart.yaml").exists()
