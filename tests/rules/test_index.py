"""``index.json`` says what the entries say, and ``mlflow_schema.sql`` what MLflow's migrations make."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from epochal.catalog.generate import REGISTRIES, index
from epochal.catalog.index import FILE, KINDS, entries, entry
from epochal.catalog.schema_model import model_of
from epochal.settings import sqlite_url
from epochal.tracking import mlflow_schema
from epochal.tracking.connection import prepare_sqlite, sqlite_path


def test_the_index_is_current() -> None:
    assert FILE.read_text(encoding="utf-8") == index(), "run `make index`"


def test_the_tables_of_mlflow_are_current() -> None:
    assert _clauses(mlflow_schema.FILE.read_text(encoding="utf-8")) == _clauses(mlflow_schema.script()), (
        "run `make index`"
    )


@pytest.mark.slow  # its tables are compared above; here also what is in them
def test_a_new_database_is_the_one_that_mlflow_would_have_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, other = (sqlite_url(tmp_path / name / "mlflow.db") for name in ("ours", "other"))
    prepare_sqlite(ours)
    monkeypatch.setattr(mlflow_schema, "version", lambda package: "0")
    prepare_sqlite(other)
    assert _clauses(_dump(ours)) == _clauses(_dump(other))


def _dump(uri: str) -> str:
    with closing(sqlite3.connect(sqlite_path(uri))) as connection:
        return "\n".join(connection.iterdump())


def _clauses(script: str) -> list[str]:
    """In no order: MLflow's migrations put a table's constraints into another one each time. The first experiment has
    the time and a folder in it."""
    return sorted(line.split("file:")[0].strip().rstrip(",") for line in script.splitlines())


def test_every_schema_reads_back_as_a_model_with_the_same_defaults() -> None:
    for kind in KINDS:
        for name, original in REGISTRIES[kind].built_in():
            rebuilt = model_of(name, entry(kind, name).params)
            ours = {key: field.get_default() for key, field in original.params.model_fields.items()}
            assert set(rebuilt.model_fields) == set(ours)
            for key, field in rebuilt.model_fields.items():
                assert field.is_required() == original.params.model_fields[key].is_required()


def test_everything_is_described() -> None:
    for kind in KINDS:
        for described in entries(kind):
            assert described.summary
            assert described.source
            lacking = [key for key, field in described.params["properties"].items() if not field.get("description")]
            assert lacking == [], f"{kind} {described.name}"
