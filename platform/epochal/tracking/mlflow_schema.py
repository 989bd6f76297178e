"""The tables of an empty MLflow database in SQLite, as MLflow's own migrations leave them.

Those take two seconds of a core, in every new home, and beside the first steps of a training. ``make index`` writes
their outcome to ``mlflow_schema.sql``, and a test holds it current. Another MLflow than the file's migrates by itself.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from epochal.settings import sqlite_url

FILE = Path(__file__).with_name("mlflow_schema.sql")


def fill(path: Path) -> None:
    """Make the tables in the empty database ``path``, where they are those of the MLflow that is installed."""
    first, _, script = FILE.read_text(encoding="utf-8").partition("\n")
    if first == _first_line():
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(script)


def script() -> str:
    """What ``FILE`` holds: all that MLflow makes but its first experiment, which has the name of a folder in it."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with TemporaryDirectory() as folder:
        path = Path(folder) / "new.db"
        SqlAlchemyStore(sqlite_url(path), folder).engine.dispose()  # type: ignore[no-untyped-call]
        with closing(sqlite3.connect(path)) as connection:
            lines = [line for line in connection.iterdump() if not line.startswith('INSERT INTO "experiments"')]
    return "\n".join([_first_line(), *(line.rstrip() for line in "\n".join(lines).splitlines()), ""])


def _first_line() -> str:
    return f"-- MLflow {version('mlflow')}"


if __name__ == "__main__":
    FILE.write_text(script(), encoding="utf-8")
