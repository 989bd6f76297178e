"""Cluster specs: every mistake at once, with its line and what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from epochal.cluster.load import load_cluster_spec
from epochal.errors import SpecError

GOOD = """\
version: 1
name: pool
image: {name: "epochal:0.1.0"}
server: {url: "http://server:8700", token: {secret: agent, key: token}}
tracking: {url: "http://mlflow:5000"}
storage: {claim: storage}
groups:
  - {name: cpu, cpus: 4, memory: 8GiB}
"""


def problems(tmp_path: Path, text: str, *overrides: str) -> list[tuple[int | None, str, str, str]]:
    file = tmp_path / "cluster.yaml"
    file.write_text(text)
    with pytest.raises(SpecError) as raised:
        load_cluster_spec(file, overrides)
    assert "epochal cluster render" in raised.value.hint, "`epochal validate` is for job specs"
    return [(one.line, one.path, one.message, one.hint) for one in raised.value.problems]


def test_a_spec_with_defaults(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(GOOD)
    spec = load_cluster_spec(file, ["groups.0.max=3"])
    (group,) = spec.groups
    assert (group.min, group.max, group.gpus, str(group.shared_memory)) == (1, 3, 0, "2GiB")
    assert spec.storage.path == "/var/lib/epochal"


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    text = (
        GOOD.replace("epochal:0.1.0", "epochal")
        .replace("cpus: 4", "cpu: 4")
        .replace("memory: 8GiB", "memory: 8Gi")
        .replace("claim: storage", "clam: storage")
    )
    found = problems(tmp_path, text)
    assert [(line, path) for line, path, _, _ in found] == [
        (3, "image.name"),
        (6, "storage.claim"),
        (6, "storage.clam"),
        (8, "groups.0.cpu"),
        (8, "groups.0.memory"),
    ]
    hints = {path: hint for _, path, _, hint in found}
    assert "claim" in hints["storage.clam"]
    assert "cpus" in hints["groups.0.cpu"]


@pytest.mark.parametrize(
    ("group", "path", "told"),
    [
        ("{name: cpu, min: 3, max: 2}", "groups.0.max", "at least min (3)"),
        ("{name: cpu, cpus: 0.5}", "groups.0.cpus", "at least 1"),
        ("{name: cpu, memory: 1GiB}", "groups.0.shared_memory", "less than memory (1GiB)"),
        ("{name: Cpu}", "groups.0.name", "lower-case"),
        ("{name: cpu, tolerations: [{key: a, value: b}]}", "groups.0.tolerations.0.value", "none for Exists"),
        ("{name: cpu, tolerations: [{operator: Equal, key: a}]}", "groups.0.tolerations.0", "a key and a value"),
        ("{name: cpu, idle: 10}", "groups.0.idle", "a duration"),
        ("{name: cpu, resources: {memory: 64}}", "groups.0.resources.memory", "and memory says how much"),
        ("{name: cpu, resources: {nvidia.com/gpu: 8}}", "groups.0.resources.nvidia.com/gpu", "and gpus says how much"),
    ],
    ids=["max", "cpus", "shm", "name", "exists", "equal", "idle", "memory", "gpus"],
)
def test_what_a_group_cannot_be(tmp_path: Path, group: str, path: str, told: str) -> None:
    found = problems(tmp_path, GOOD.replace("{name: cpu, cpus: 4, memory: 8GiB}", group))
    assert [(one[1], told in one[2]) for one in found] == [(path, True)], found


def test_two_groups_of_one_name(tmp_path: Path) -> None:
    found = problems(tmp_path, GOOD + "  - {name: cpu}\n")
    assert {path for _, path, _, _ in found} >= {"groups.0.name", "groups.1.name"}


@pytest.mark.parametrize("image", ["epochal", "epochal:latest", "host:5000/epochal"], ids=["none", "latest", "port"])
def test_an_image_without_a_version_is_refused(tmp_path: Path, image: str) -> None:
    assert [one[1] for one in problems(tmp_path, GOOD.replace("epochal:0.1.0", image))] == ["image.name"]
