"""What keeps MLflow from taking what it is sent: the one table from its errors to words and a remedy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from epochal.redaction import said
from epochal.urls import without_password

_WORDS = 300


@dataclass(frozen=True)
class Obstacle:
    """``kind`` stays the same as long as the cause does, whatever the error says of ports, ids and addresses in memory.

    ``whole``: nothing else that is sent to that server will arrive either. ``deleted``: somebody meant it so.
    """

    kind: str
    said: str
    remedy: str
    whole: bool = False
    deleted: bool = False

    def __str__(self) -> str:
        return f"{self.said}: {self.remedy}"


class BlockedError(Exception):
    """MLflow answers, and what it says of a run or an experiment is why nothing can be sent."""

    def __init__(self, obstacle: Obstacle) -> None:
        super().__init__(obstacle)
        self.obstacle = obstacle


class ArtifactError(Exception):
    """A file was not stored, for the reason that is its ``__cause__``: the store's own errors are of any library."""


class _Row(NamedTuple):
    """A row of the table: an error with one of ``signs``, or with ``text`` in what it says."""

    kind: str
    signs: str
    text: str
    said: str
    remedy: str
    whole: bool = False


_ADDRESS = (
    "MLFLOW_TRACKING_URI has to be that of an MLflow server (http://127.0.0.1:5000) or of a database (sqlite:///FILE)"
)
_RIGHTS = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, where jobs run"

_TABLE = (
    _Row("unknown user", "401 UNAUTHENTICATED CUSTOMER_UNAUTHORIZED", "", "does not know who asks", _RIGHTS, True),
    _Row(
        "forbidden", "403 PERMISSION_DENIED", "", "forbids it",
        "whoever administers MLflow can allow its user to edit this experiment",
    ),
    _Row(
        "too large", "413", "", "finds one request too large",
        "the proxy in front of it has such a limit (nginx: client_max_body_size): raise it",
    ),
    _Row(
        "quota", "429 507 REQUEST_LIMIT_EXCEEDED RESOURCE_EXHAUSTED", "", "takes no more for now",
        "raise its quota, or wait: it is tried again and again",
    ),
    _Row(
        "too old", "", "/(logged-models|outputs).* 404 != 200", "does not know logged models",
        "that is an MLflow before version 3: upgrade that server",
    ),
    _Row(
        "not mlflow", "301 302 303 307 308 404 405 501 ENDPOINT_NOT_FOUND NO_CODE", "not in a valid JSON format",
        "does not answer as MLflow does", f"something else may listen there, or a proxy be in front; {_ADDRESS}", True,
    ),
    _Row(
        "not a uri", "InvalidUrlException InvalidURL MissingSchema InvalidSchema LocationParseError NoSuchModuleError"
        " ArgumentError UnsupportedModelRegistryStoreURIException",
        "(?i)unsupported (db type|uri)|invalid url|no connection adapters|maintenance mode",
        "is no address of MLflow", _ADDRESS, True,
    ),
    _Row(
        "database", "OperationalError DatabaseError", r"sqlite3\.|psycopg|pymysql|sqlalche\.me",
        "cannot use its database", "look whether it is there, at its room, its rights and who locks it", True,
    ),
    _Row(
        "away", "502 503 504 TEMPORARILY_UNAVAILABLE DEADLINE_EXCEEDED ConnectionError Timeout",
        "failed with timeout exception|failed with exception(?!.*too many 500)|Max retries exceeded(?!.*too many 500)",
        "cannot be reached", "start it, or correct MLFLOW_TRACKING_URI: it is tried again and again", True,
    ),
    _Row("gone", "RESOURCE_DOES_NOT_EXIST", "", "does not have what this belongs to", "look there who removed it"),
    _Row(
        "refused", "400 BAD_REQUEST INVALID_PARAMETER_VALUE", "", "refuses it",
        "change that in the spec of the next job, or upgrade MLflow",
    ),
    _Row("disk", "OSError", "", "cannot be written", "make room there, or make it writable", True),
    _Row("failed", "Exception", "", "fails at it", "its own log says why"),
)  # fmt: skip
"""In order: the first row that fits."""

_OF_STORES = ("unknown user", "forbidden", "too large", "quota", "away")
"""The rows that are as true of an artifact store."""
_STORE = _Row("artifacts", "", "", "does not take it", "make it writable, with room, from where that is sent")
_SCHEMA = re.compile(r"out-of-date database schema \(found version (\w+), but expected")
_STATUS = re.compile(r"error code (\d{3}) != \d{3}|too many (\d{3}) error responses")
_CAUSE = re.compile(r"\(Caused by (.*)\)")


def obstacle_of(uri: str, error: Exception) -> Obstacle:
    """What an error of MLflow's client, or of the database or store behind it, means for what is sent to ``uri``."""
    if isinstance(error, BlockedError):
        return error.obstacle
    what = f"MLflow at {without_password(uri)}"
    cause = error.__cause__ if isinstance(error, ArtifactError) else None
    if isinstance(cause, Exception):
        row = found if (found := _row_of(cause)).kind in _OF_STORES else _STORE
        what = what if row.whole else f"the artifact store of {what}"
        return Obstacle(row.kind, f"{what} {row.said} ({said(error)}: {_words(cause)})", row.remedy, row.whole)
    if schema := _SCHEMA.search(said(error)):
        return _of_schema(what, schema[1], uri)
    row = _row_of(error)
    return Obstacle(row.kind, f"{what} {row.said} ({_words(error)})", row.remedy, row.whole)


def no_mlflow(uri: str, found: str) -> Obstacle:
    row = next(row for row in _TABLE if row.kind == "not mlflow")
    return Obstacle(row.kind, f"MLflow at {without_password(uri)} {row.said} ({found})", row.remedy, True)


def described(error: BaseException) -> str:
    """What an error says, on one line. Those of MLflow's client hold the whole URL that was asked for."""
    return " ".join(said(error).split())


def status_of(error: Exception) -> str:
    """The HTTP status behind an error, where it was not MLflow's own answer; empty where there is none."""
    answer = getattr(error, "response", None)
    found = _STATUS.search(said(error))
    return str(answer.status_code) if answer is not None else (found[1] or found[2]) if found else ""


def _words(error: BaseException) -> str:
    found = _CAUSE.search(words := described(error))
    return (found[1] if found else words)[:_WORDS]


def _row_of(error: Exception) -> _Row:
    signs, words = set(_signs(error)), said(error)
    return next(
        row for row in _TABLE if signs.intersection(row.signs.split()) or (row.text and re.search(row.text, words))
    )


def _signs(error: Exception) -> Iterator[str]:
    names = [kind.__name__ for kind in type(error).__mro__]
    # What goes wrong on the network is an OSError for `requests` too, and not for want of room on a disk.
    yield from (name for name in names if name != "OSError" or "RequestException" not in names)
    answer = getattr(error, "json", None)
    if isinstance(answer, dict) and "error_code" not in answer:
        yield "NO_CODE"
    # MLflow's client makes a code of every status, which says less than the status does.
    elif not (status := status_of(error)) or status.startswith("5"):
        yield str(getattr(error, "error_code", ""))
    yield status_of(error)


def _of_schema(what: str, revision: str, uri: str) -> Obstacle:
    from mlflow.store import db_migrations
    from mlflow.version import VERSION

    folder = Path(db_migrations.__file__).parent / "versions"
    said = f"the database of {what} is of another version than the MLflow {VERSION} here ({revision})"
    if any(folder.glob(f"{revision}_*.py")):
        remedy = f"it is older: make a copy of it, then `mlflow db upgrade {without_password(uri)}`"
        return Obstacle("older schema", said, remedy, True)
    remedy = "it is newer, or no release's: `pip install --upgrade mlflow`, where jobs run"
    return Obstacle("newer schema", said, remedy, True)
