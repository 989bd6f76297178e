"""What keeps a pod from running, from what Kubernetes 1.34 tells of it, in a user's words."""

from __future__ import annotations

from typing import Any

import pytest

from epochal.cluster.pods import newest_warnings, unschedulable, why_not_ready

NAME = "pool-gpu-1"


def container(**state: Any) -> dict[str, Any]:
    return {"phase": "Pending", "containerStatuses": [{"image": "epochal:9", "restartCount": 3, **state}]}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"state": {"waiting": {"reason": reason, "message": message}}}


def warning(message: str, at: str = "2026-01-01T00:00:00Z", uid: str = "this") -> dict[str, Any]:
    about = {"kind": "Pod", "name": NAME, "uid": uid}
    return {"type": "Warning", "involvedObject": about, "message": message, "lastTimestamp": at}


@pytest.mark.parametrize(
    ("status", "events", "told"),
    [
        (container(**waiting("ImagePullBackOff", "Back-off pulling")), [], "image epochal:9 cannot be pulled: Back"),
        (container(**waiting("ErrImageNeverPull")), [], "the image epochal:9 cannot be pulled: ErrImageNeverPull"),
        (
            container(**waiting("CreateContainerConfigError", 'secret "agent" not found')), [],
            'CreateContainerConfigError: secret "agent" not found; make it, or name one that is there',
        ),
        (
            container(**waiting("CreateContainerConfigError", "couldn't find key admin in Secret training/tokens")), [],
            "couldn't find key admin in Secret training/tokens; the Secret has to have that key as well",
        ),
        (
            container(**waiting("CrashLoopBackOff"), lastState={"terminated": {"exitCode": 5, "message": "no server"}}),
            [],
            "it has ended 3 times: exit code 5: no server",
        ),
        (
            container(
                state={"terminated": {"exitCode": 5, "message": "agent pool\nwarm\nerror: refused\ngive it a token\n"}}
            ),
            [],
            "it has ended 4 times: exit code 5: warm error: refused give it a token",
        ),
        (
            container(**waiting("CrashLoopBackOff"), lastState={"terminated": {"reason": "OOMKilled"}}),
            [],
            "it has ended 3 times: it was killed for memory; let it have more memory",
        ),
        (
            container(state={"running": {}}, lastState={"terminated": {"exitCode": 5, "message": "no server"}}),
            [],
            "it has ended 3 times: exit code 5: no server",
        ),
        (
            container(state={"terminated": {"exitCode": 1, "message": f"Traceback{' at' * 300}\nNo such host"}}),
            [],
            "at at No such host",
        ),
        (container(state={"terminated": {"exitCode": 1}}), [], "it has ended 4 times: exit code 1"),
        (
            container(**waiting("ContainerCreating")),
            [warning('MountVolume.SetUp failed: secret "a" not found'), warning("older", "2025-01-01T00:00:00Z")],
            'MountVolume.SetUp failed: secret "a" not found',
        ),
        (container(**waiting("ContainerCreating")), [warning("of the pod before", uid="before")], "it starts"),
        (container(state={"running": {}}), [], "it is not ready yet"),
        ({"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."}, [], "The node was low"),
        ({"phase": "Pending"}, [], "it starts"),
        (
            {**container(state={"running": {}}), "initContainerStatuses": [
                {"ready": True, "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}
            ]},
            [],
            "it is not ready yet",
        ),
        (
            {**container(**waiting("PodInitializing")), "initContainerStatuses": [
                {"ready": False, "restartCount": 1, "state": {"terminated": {"exitCode": 1, "message": "no GCS"}}}
            ]},
            [],
            "it has ended 2 times: exit code 1: no GCS",
        ),
    ],
    ids=[
        "pull", "never", "secret", "key", "crash", "log", "oom", "again", "long", "ended", "mount", "other", "running",
        "evicted", "new", "init", "no-init",
    ],
)  # fmt: skip
def test_why_a_pod_is_not_ready(status: dict[str, Any], events: list[dict[str, Any]], told: str) -> None:
    found = why_not_ready({"metadata": {"name": NAME, "uid": "this"}, "status": status}, newest_warnings(events))
    assert told in found


def test_a_pod_that_is_ready_or_ending() -> None:
    status = {"conditions": [{"type": "Ready", "status": "True"}]}
    assert why_not_ready({"metadata": {"name": NAME}, "status": status}, {}) == ""
    ending = {"metadata": {"name": NAME, "deletionTimestamp": "now"}, "status": status}
    assert why_not_ready(ending, {}) == "it is ending"


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (
            "0/10 nodes are available: 2 Insufficient nvidia.com/gpu, 8 node(s) had untolerated taint"
            " {nvidia.com/gpu: present}. preemption: 0/10 nodes are available: 10 Preemption is not helpful.",
            "of 10 nodes 2 with less than 8 nvidia.com/gpu free, 8 with the taint nvidia.com/gpu: present, which is",
        ),
        (
            "0/3 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }, 2 node(s)"
            " didn't match Pod's node affinity/selector.",
            "1 with the taint node.kubernetes.io/not-ready, which is not tolerated, 2 without the labels that",
        ),
        (
            "0/10 nodes are available: 2 node(s) didn't match Pod's node affinity/selector, 8 node(s) had untolerated"
            " taint(s). no new claims to deallocate, preemption: 0/10 nodes are available: 10 Preemption is not.",
            "of 10 nodes 2 without the labels that node_selector wants, 8 with taints that the tolerations do not name",
        ),
        ("0/1 nodes are available: 1 node(s) were unschedulable.", "1 closed to new pods (cordoned)"),
        ("0/2 nodes are available: 1 Too many pods, 1 Insufficient memory.", "1 with too little memory free"),
        (
            'persistentvolumeclaim "storage" not found',
            'no node takes it: persistentvolumeclaim "storage" not found',
        ),
        (
            "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims. not found",
            "no node takes it: pod has unbound immediate PersistentVolumeClaims",
        ),
        (
            '0/2 nodes are available: persistentvolumeclaim "storage" not found. not found',
            'no node takes it: persistentvolumeclaim "storage" not found',
        ),
    ],
    ids=["gpu", "labels", "taints", "cordoned", "full", "claim", "unbound", "missing"],
)  # fmt: skip
def test_why_no_node_takes_a_pod(message: str, told: str) -> None:
    assert told in unschedulable(message, {"nvidia.com/gpu": "8"})
