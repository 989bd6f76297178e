"""Who types commands in an empty home, and what `epochal up` starts, once for all that need it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typist import Typist

from epochal.urls import free_port


@pytest.fixture
def typist(tmp_path: Path) -> Typist:
    folder = tmp_path / "here"
    folder.mkdir()
    return Typist(folder, tmp_path / "home")


@pytest.fixture(scope="module")
def home_that_is_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Typist]:
    """After `epochal up`, with a secret in its environment."""
    root = tmp_path_factory.mktemp("up")
    typist = Typist(root, root / "home", {"MY_SECRET": "hunter2-is-it"})
    ports = [f"--port={free_port()}", f"--mlflow-port={free_port()}"]
    came = typist.epochal("up", *ports, "--cpus=2", "-o", "json")
    assert came.returncode == 0
    yield typist
    typist.epochal("down", "--now")


@pytest.fixture
def served(home_that_is_up: Typist, tmp_path: Path) -> Typist:
    """The same, in a folder of this test's own."""
    return Typist(tmp_path, home_that_is_up.home, home_that_is_up.environ)
