"""Files and words of Kubernetes that are not as they usually are."""

from __future__ import annotations

from pathlib import Path

import pytest

from epochal.cluster.api import Api
from epochal.cluster.pods import unschedulable
from epochal.errors import UnreachableError


@pytest.mark.parametrize("content", ["a: [\n", "- a\n", "{}\n", "\tx", "current-context: 1\ncontexts: 2\n"])
def test_a_kubeconfig_that_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str) -> None:
    file = tmp_path / "config"
    file.write_text(content)
    monkeypatch.setenv("KUBECONFIG", str(file))
    with pytest.raises(UnreachableError, match="no Kubernetes cluster is configured: ") as caught:
        Api.connect()
    assert "KUBECONFIG" in caught.value.hint


def test_a_scheduler_that_names_no_node() -> None:
    assert unschedulable("0/1 nodes are available: .", {}) == "no node takes it: 0/1 nodes are available:"
