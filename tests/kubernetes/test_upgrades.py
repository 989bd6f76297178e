"""A release goes to the chart of today and back while a job trains; a ledger of the first version comes along."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from epochal.ledger.migrations import HEAD
from epochal.ledger.states import Outcome
from epochal.spec.load import load_spec
from installation import QUICKSTART, STEPS, Installation
from kubernetes_cluster import ROOT, Kubernetes, run

pytestmark = pytest.mark.timeout(1800)

EARLIER = os.environ.get("EPOCHAL_EARLIER_CHART", "")
"""A chart to come from. Default: this repository's before its last change. Read before the environment is cleaned."""

IN_FLIGHT = "env.SLOW_SECONDS='0.3'"


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if EARLIER:
        return Path(EARLIER)
    changes = run("git", "-C", str(ROOT), "log", "--format=%H", "-2", "--", "helm/epochal").split()
    if len(changes) < 2:
        pytest.skip("git does not know an earlier chart here, and EPOCHAL_EARLIER_CHART names none")
    folder = tmp_path_factory.mktemp("earlier")
    run("git", "-C", str(ROOT), "archive", "--output", str(folder / "all.tar"), changes[1])  # it links to other folders
    with tarfile.open(folder / "all.tar") as archive:
        archive.extractall(folder, filter="data")
    return folder / "helm" / "epochal"


@pytest.fixture(scope="module")
def installed(kubernetes: Kubernetes, namespace: str, earlier: Path) -> Iterator[Installation]:
    with Installation(kubernetes, namespace, chart=earlier) as installation:
        yield installation
        installation.uninstall()


def assert_nothing_lost(installed: Installation, job_id: str) -> None:
    job = installed.succeeded(job_id)
    _, curve = installed.curve(job.run_id)
    assert [step for step, _ in curve] == list(range(1, STEPS + 1)), "each step is recorded, and once"
    print("; ".join(f"attempt {one.epoch}: {one.outcome} {one.message}" for one in installed.client.attempts(job_id)))


def test_from_an_earlier_chart_and_back_with_a_job_in_flight_each(installed: Installation) -> None:
    there = installed.submitted(IN_FLIGHT)
    installed.until_step(there, 1)
    installed.chart = None
    print(f"helm upgrade took {installed.install():.0f} s")
    assert_nothing_lost(installed, there)
    back = installed.submitted(IN_FLIGHT)
    installed.until_step(back, 1)
    where = ("--namespace", installed.namespace, "--wait", "--timeout", "10m")
    installed.kubernetes.helm("rollback", "epochal", "1", *where)
    assert_nothing_lost(installed, back)
    assert {there, back} <= installed.jobs


FIRST_LEDGER = """
import os
from sqlalchemy import inspect, text
from epochal.ledger import schema
from epochal.ledger.database import Database

JOB = '''
INSERT INTO jobs (id, name, spec, spec_digest, priority, submitted_by, origin, state, message, epoch, owner, expires_at,
    submitted_at, entered_at, updated_at, waited_seconds, ran_seconds)
VALUES (:id, :id, CAST(:spec AS JSON), :id, 50, 'ada', '{}', :state, '', :epoch, :owner, :expires, 1, 2, 2, 1, 0)
'''
ATTEMPT = '''
INSERT INTO attempts (job_id, epoch, agent, leased_at, message, detail) VALUES ('running', 1, 'a', 2, '', '{}')
'''
database = Database(os.environ["EPOCHAL_LEDGER"])
with database.write() as connection:
    for table in inspect(connection).get_table_names():
        connection.execute(text(f'DROP TABLE "{table}" CASCADE'))
    schema.migrate(connection, "0001")
    for state, epoch, owner, expires in (("QUEUED", 0, None, None), ("RUNNING", 1, "a", 0.0)):
        values = {"id": state.lower(), "state": state, "epoch": epoch, "owner": owner, "expires": expires}
        connection.execute(text(JOB), values | {"spec": SPEC})
    connection.execute(text(ATTEMPT))
"""
"""In the place of today's, as the first version wrote it: a job in its queue, and one that an agent had."""


def test_a_ledger_of_the_first_version_is_upgraded_with_its_jobs(installed: Installation) -> None:
    installed.kubectl("scale", "deployment", "epochal-server", "--replicas=0")
    server = "app.kubernetes.io/component=server"
    installed.kubectl("wait", "pod", "--selector", server, "--for=delete", "--timeout=120s")
    spec = json.dumps(load_spec(str(QUICKSTART)).spec.model_dump(mode="json"))
    in_its_place(installed, f"SPEC = {spec!r}\n{FIRST_LEDGER}")
    installed.chart = None
    installed.install()
    said = installed.kubectl("logs", "deployment/epochal-server", "--container", "migrate")
    assert f"upgraded from version 0001 to {HEAD}" in said
    assert installed.jobs == {"queued", "running"}
    for job_id in ("queued", "running"):
        installed.succeeded(job_id)
    first, second = installed.client.attempts("running")
    assert first.outcome is Outcome.INTERRUPTED
    assert second.agent.startswith("epochal/")


def in_its_place(installed: Installation, script: str) -> str:
    """What a pod like the server's prints, which runs the script."""
    deployment = installed.kubernetes.get(installed.namespace, "deployment/epochal-server")
    template = deployment["spec"]["template"]
    (container,) = template["spec"]["containers"]
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        del container[name]
    container["command"] = ["python", "-c", script]
    # Again where it comes before the network's policies know its address: PostgreSQL refuses it then.
    spec = template["spec"] | {"initContainers": [], "restartPolicy": "OnFailure"}
    metadata = {"name": "in-its-place", "labels": template["metadata"]["labels"]}
    return installed.kubernetes.ran(
        installed.namespace, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    )
