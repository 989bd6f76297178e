"""What keeps a pod from running, in a user's words: pure functions over what the API server tells of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Manifest = Mapping[str, Any]
Warnings = Mapping[str, str]
"""The newest warning about an object, by its uid: events outlive what they are about, and names come again."""

_NODES = re.compile(r"^0/(\d+) nodes are available: (.*)$", re.DOTALL)
_COUNTED = re.compile(r"^(\d+) (?:node\(s\) )?(.*)$", re.DOTALL)
_FORBIDDEN = re.compile(r'^.*?pods "[^"]+" is forbidden: ', re.DOTALL)
_PULLING = {"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
_INSUFFICIENT = re.compile(r"^Insufficient (.+)$")
_TAINT = re.compile(r"taint\(?s?\)? \{(.*?):? ?\}")
_WORDS = {
    "untolerated taint": "with taints that the tolerations do not name",
    "Too many pods": "with as many pods as they take",
    "affinity/selector": "without the labels that node_selector wants",
    "were unschedulable": "closed to new pods (cordoned)",
}
_STARTING = {"ContainerCreating", "PodInitializing"}
_LONGEST = 400
_REMEDIES = (
    (re.compile(r'(secret|configmap|persistentvolumeclaim) "[^"]+" not found'), "make it, or name one that is there"),
    (re.compile("unbound immediate PersistentVolumeClaims"), "`kubectl describe pvc` says why there is no volume"),
    (re.compile("cannot be pulled"), "is that its name, and may the nodes pull it from there?"),
    (re.compile("exceeded quota"), "have it raised, or ask for less"),
    (
        re.compile("(maximum|minimum) .* usage per"),
        "by a LimitRange of the namespace: keep to it, or have it changed",
    ),
    (re.compile("couldn't find key|non-existent secret key"), "the Secret has to have that key as well"),
    (re.compile("killed for memory"), "let it have more memory"),
    (re.compile(r"no node takes it: .* with (less than|too little) "), "ask for less, or add a node that has it"),
)
_LAST_LINES = 3


def newest_warnings(events: Iterable[Manifest]) -> Warnings:
    found: dict[str, tuple[str, str]] = {}
    for event in events:
        about = event.get("involvedObject") or event.get("regarding") or {}
        key, at = str(about.get("uid")), _time(event)
        if event.get("type") == "Warning" and at >= found.get(key, ("", ""))[0]:
            found[key] = at, refused(str(event.get("message") or event.get("note") or event.get("reason")))
    return {key: text for key, (_, text) in found.items()}


def is_ready(pod: Manifest) -> bool:
    return not pod["metadata"].get("deletionTimestamp") and _condition(pod, "Ready").get("status") == "True"


def why_not_ready(pod: Manifest, warnings: Warnings) -> str:
    """Empty for a pod that is ready."""
    return "" if is_ready(pod) else with_remedy(_why_not(pod, warnings))


def _why_not(pod: Manifest, warnings: Warnings) -> str:
    if pod["metadata"].get("deletionTimestamp"):
        return "it is ending"
    status = pod.get("status", {})
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return unschedulable(str(scheduled.get("message") or scheduled.get("reason")), _asked(pod))
    if status.get("phase") == "Failed":
        return _sentence(f"it failed: {status.get('message') or status.get('reason') or 'its container ended'}")
    newest = warnings.get(str(pod["metadata"].get("uid")), "")
    first = [
        one for one in status.get("initContainerStatuses", ()) if not one.get("ready")
    ]  # else it has done its part
    for container in (*first, *status.get("containerStatuses", ())):
        if told := _container(container, newest):
            return told
    return newest or "it starts"


def with_remedy(told: str) -> str:
    """
    >>> with_remedy('secret "db" not found')
    'secret "db" not found; make it, or name one that is there'
    """
    return "; ".join([told, *(remedy for pattern, remedy in _REMEDIES if pattern.search(told))])


def why_not_made(owner: Manifest) -> str:
    """What keeps the ``owner``'s controller from making a pod, by its condition; empty where that says nothing."""
    for condition in conditions(owner, "ReplicaFailure"):
        if condition.get("status") == "True":
            return with_remedy(refused(str(condition.get("message"))))
    return ""


def refused(message: str) -> str:
    """Why a pod could not be made, without the name that it would have had, which is another one each time.

    >>> refused('FailedCreateWorkerPod\\npods "pool-cpu-x7" is forbidden: exceeded quota: small')
    'exceeded quota: small'
    """
    return _sentence(_FORBIDDEN.sub("", message))


def unschedulable(message: str, asked: Mapping[str, str]) -> str:
    """Why no node takes a pod that asks for these resources, from the scheduler's words.

    >>> told = "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint {a: b}. preemption: ..."
    >>> unschedulable(told, {"cpu": "4"})
    'no node takes it: of 3 nodes 1 with less than 4 cpu free, 2 with the taint a: b, which is not tolerated'
    """
    first = message.partition(". ")[0].rstrip(".")  # what follows is about preemption
    found = _NODES.match(first)
    if found is None or not found[2][:1].isdigit():  # it is about no node: a claim, for instance
        return _sentence(f"no node takes it: {(found and found[2]) or first}")
    reasons = [_reason(one, asked) for one in found[2].split(", ")]
    return _sentence(f"no node takes it: of {found[1]} nodes {', '.join(reasons)}")


def _reason(text: str, asked: Mapping[str, str]) -> str:
    found = _COUNTED.match(text)
    if found is None:
        return text
    count, what = found[1], found[2]
    if resource := _INSUFFICIENT.match(what):
        amount = asked.get(resource[1])
        return f"{count} with {f'less than {amount}' if amount else 'too little'} {resource[1]} free"
    if taint := _TAINT.search(what):
        return f"{count} with the taint {taint[1]}, which is not tolerated"
    for known, words in _WORDS.items():
        if known in what:
            return f"{count} {words}"
    return f"{count} {what}"


def _container(container: Manifest, newest: str) -> str:
    """What a container waits for; empty where it says nothing."""
    state, image = container.get("state", {}), container.get("image", "")
    waiting = state.get("waiting", {})
    reason, message = str(waiting.get("reason", "")), str(waiting.get("message", ""))
    if reason in _PULLING:
        return _sentence(f"the image {image} cannot be pulled: {message or newest or reason}")
    ended = state.get("terminated") or container.get("lastState", {}).get("terminated")
    if ended and reason in ("", "CrashLoopBackOff"):  # it runs again, it ended just now, or it waits before it does
        killed = "it was killed for memory" if ended.get("reason") == "OOMKilled" else _ended(ended)
        return f"it has ended {container.get('restartCount', 0) + ('terminated' in state)} times: {killed}"
    if reason and reason not in _STARTING:
        return _sentence(f"{reason}: {message or newest}")
    return newest or ("it is not ready yet" if "running" in state else "")


def _ended(ended: Manifest) -> str:
    # What it wrote for that, or else the end of its log, in which the last lines say it.
    words = " ".join(" ".join(str(ended.get("message") or "").strip().splitlines()[-_LAST_LINES:]).split())
    words = words if len(words) <= _LONGEST else f"...{words[-_LONGEST:]}"
    return f"exit code {ended.get('exitCode')}{f': {words}' if words else ''}"


def _asked(pod: Manifest) -> dict[str, str]:
    """What its containers ask for; of one resource that several ask for, the first one's."""
    asked: dict[str, str] = {}
    for container in pod.get("spec", {}).get("containers", ()):
        for name, amount in (container.get("resources", {}).get("requests") or {}).items():
            asked.setdefault(name, str(amount))
    return asked


def _condition(one: Manifest, kind: str) -> Manifest:
    return next(iter(conditions(one, kind)), {})


def conditions(one: Manifest, kind: str) -> Iterator[Manifest]:
    for condition in one.get("status", {}).get("conditions", ()):
        if condition.get("type") == kind:
            yield condition


def _time(event: Manifest) -> str:
    """RFC 3339 in UTC, which sorts as text."""
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return max((str(one) for one in times if one), default="")


def _sentence(text: str) -> str:
    """On one line, and not for ever."""
    line = " ".join(text.split()).rstrip(".")
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."
