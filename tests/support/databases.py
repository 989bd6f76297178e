"""What a ledger may be on: fixtures for the tests that run on each. A ``conftest.py`` imports them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from postgres import Postgres, binaries

__all__ = ["ledger_url", "new_ledger_url", "postgres"]

DATABASES = [pytest.param("sqlite"), pytest.param("postgresql", marks=pytest.mark.slow)]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    programs = binaries()
    if programs is None or find_spec("psycopg") is None:
        pytest.skip("needs PostgreSQL's programs and psycopg")
    with Postgres(programs) as cluster:
        yield cluster


@pytest.fixture(params=DATABASES)
def new_ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Gives the URL of an empty database, another one at each call."""
    if request.param == "postgresql":
        cluster: Postgres = request.getfixturevalue("postgres")
        return cluster.new_url
    names = iter(range(1_000_000))
    return lambda: f"sqlite:///{tmp_path / f'ledger-{next(names)}.db'}"


@pytest.fixture
def ledger_url(new_ledger_url: Callable[[], str]) -> str:
    return new_ledger_url()
