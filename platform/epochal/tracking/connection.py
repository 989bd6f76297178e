"""The one place where mlflow is imported quietly, and where its failures get names."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from epochal.errors import UnreachableError
from epochal.settings import sqlite_url
from epochal.tracking import mlflow_schema
from epochal.tracking.obstacle import ArtifactError, BlockedError, obstacle_of

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

REQUEST_TIMEOUT_SECONDS = "10"
_PAGE = 1000
_MAX_NAME_BYTES = 255
"""Of a file or a folder, in most file systems; letters of most scripts take two to four."""

_making = threading.Lock()
"""Alembic, which makes MLflow's tables, keeps what it is at in globals: two threads at once spoil each other's."""


def quiet_mlflow() -> None:
    """Import mlflow without its chatter, with short timeouts and no retries of its own.

    A retry inside MLflow's client can repeat a ``create_run`` whose answer was lost and so make two runs; ``sync``
    looks first and tries again by itself.
    """
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", REQUEST_TIMEOUT_SECONDS)
    os.environ.setdefault("PGCONNECT_TIMEOUT", REQUEST_TIMEOUT_SECONDS)  # of a PostgreSQL that MLflow opens here
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # MLflow prints a line with the run's address to stdout, where our data goes.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    import mlflow.tracking  # noqa: F401

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # A locked or unreachable database is reported by us, as a problem of the sync, not as a traceback.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


@lru_cache(maxsize=8)
def connect(uri: str) -> MlflowClient:
    """A client for ``uri``. A SQLite file that is not there yet is made first."""
    quiet_mlflow()
    from mlflow.tracking import MlflowClient

    prepare_sqlite(uri)
    if not uri.startswith(("http:", "https:")):
        from mlflow.store.db import utils

        utils.MAX_RETRY_COUNT = 1  # it would try a database that is away for 100 s
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def experiment_names(client: MlflowClient) -> dict[str, str]:
    """The name of every experiment that is not deleted, by id. MLflow gives them a page at a time."""
    names: dict[str, str] = {}
    token: str | None = None
    while True:
        page = client.search_experiments(max_results=_PAGE, page_token=token)
        names.update({found.experiment_id: found.name for found in page})
        token = page.token
        if not token:
            return names


def is_sqlite(uri: str) -> bool:
    return uri.startswith("sqlite:")


def sqlite_path(uri: str) -> Path:
    """As SQLAlchemy reads it; see ``settings.sqlite_url``."""
    return Path(unquote(uri.partition("?")[0].removeprefix("sqlite:///")))


def artifact_root(uri: str) -> Path:
    """Where runs recorded in a SQLite file keep their artifacts: beside it."""
    return sqlite_path(uri).parent / "artifacts"


def artifact_location(uri: str, experiment: str) -> str | None:
    """Where a new experiment keeps its artifacts; None leaves that to the tracking server."""
    if not is_sqlite(uri):
        return None
    folder = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in experiment).lstrip(".") or "_"
    if len(folder.encode()) > _MAX_NAME_BYTES:
        folder = sha256(folder.encode()).hexdigest()
    return (artifact_root(uri) / folder).absolute().as_uri()


def prepare_sqlite(uri: str) -> None:
    """Make the SQLite file of a tracking URI where there is none.

    It is made under a temporary name and moved into place, so that neither a kill nor a second process leaves a
    half-migrated database behind.
    """
    if not is_sqlite(uri):
        return
    quiet_mlflow()
    from mlflow.store.db import utils

    # It makes a folder of the URL's text, where that is another than the one that it means; ours is there already.
    utils._make_parent_dirs_if_sqlite = lambda db_uri: None
    with _making:
        if not sqlite_path(uri).exists():
            _make_sqlite(uri)


def _make_sqlite(uri: str) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    target = sqlite_path(uri)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".mlflow-", dir=target.parent) as folder:
        path = Path(folder) / "new.db"
        mlflow_schema.fill(path)
        store = SqlAlchemyStore(sqlite_url(path), artifact_root(uri).absolute().as_uri())  # type: ignore[no-untyped-call]
        store.engine.dispose()
        try:
            os.link(path, target)
        except FileExistsError:
            return
        except OSError:  # a file system without links: two that make it at once are kept apart by `_making` alone
            path.rename(target)


def error_code(error: Exception) -> str:
    """MLflow's name for what went wrong; empty where the error is not MLflow's."""
    return str(getattr(error, "error_code", ""))


def is_refused(error: Exception) -> bool:
    """MLflow looked at the data and will never take it: sending it again is no use."""
    return error_code(error) == "INVALID_PARAMETER_VALUE"


def is_missing(error: Exception) -> bool:
    return error_code(error) == "RESOURCE_DOES_NOT_EXIST"


def is_mlflow_failure(error: Exception) -> bool:
    """An answer, or the lack of one, of the tracking server or its storage, rather than a fault of ours."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    # SQLAlchemy's own errors come out of MLflow unwrapped while it opens a database.
    foreign = type(error).__module__.split(".")[0] in {"sqlalchemy", "sqlite3", "urllib3"}
    return foreign or isinstance(error, MlflowException | RequestException | OSError | BlockedError | ArtifactError)


@contextmanager
def answering(uri: str) -> Iterator[None]:
    """Within the ``with`` block failures of the tracking server are raised as ``UnreachableError``."""
    quiet_mlflow()
    try:
        yield
    except Exception as error:
        if not is_mlflow_failure(error):
            raise
        raise unreachable(uri, error) from error


def unreachable(uri: str, error: Exception) -> UnreachableError:
    found = obstacle_of(uri, error)
    return UnreachableError(
        found.said, f"{found.remedy}; `epochal ui` opens the local one" if found.whole else found.remedy
    )
