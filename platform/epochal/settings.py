"""Where Epochal keeps things, and the environment variables that say so."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from epochal.errors import UsageError
from epochal.redaction import said

DEFAULT_SERVER_PORT = 8700
DEFAULT_MLFLOW_PORT = 5000
DEFAULT_PROMETHEUS_PORT = 8790
"""Not its own 9090: where it is installed as a service, that one listens there."""
_DAY = 86_400.0

CREDENTIALS = (
    "EPOCHAL_TOKEN",
    "EPOCHAL_LEDGER",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
)
"""Variables that let commands, agents and the server in elsewhere. A job's code gets none of them."""


@dataclass(frozen=True)
class Home:
    """The folder of everything Epochal keeps on this machine."""

    root: Path

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.db"

    @property
    def ledger_url(self) -> str:
        return sqlite_url(self.ledger)

    @property
    def storage(self) -> Path:
        """The storage root: checkpoints, spools, logs and models of every job."""
        return self.root / "storage"

    @property
    def tracking_uri(self) -> str:
        return sqlite_url(self.root / "mlflow.db")

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    @property
    def packages(self) -> Path:
        """Shipped code, by digest."""
        return self.storage / "code"

    def job(self, job_id: str) -> Path:
        """A job's folder in the storage root."""
        return self.storage / "jobs" / job_id

    @property
    def read_data(self) -> Path:
        """Which samples of a dataset were found bad, by its digest."""
        return self.root / "data"

    @property
    def served(self) -> Home:
        """The home of a server and its agents: apart, since a job of `epochal run` is no server's to give away."""
        return Home(self.root / "server")

    @property
    def store(self) -> Path:
        """What a server keeps beside its ledger: shipped code and the workers' logs."""
        return self.root / "store"

    @property
    def services(self) -> Path:
        """State and logs of the services that `epochal up` started."""
        return self.root / "services"

    @property
    def token(self) -> Path:
        """The token that `epochal up` wrote for the commands on this machine; readable by its owner alone."""
        return self.root / "token"

    @property
    def config(self) -> Path:
        """The servers that commands can talk to."""
        return self.root / "config.yaml"

    @property
    def ray_token(self) -> Path:
        return self.root / "ray_token"


@dataclass(frozen=True)
class Retention:
    """How long what jobs leave is kept once they have ended, in seconds by kind; None: for ever.

    Nothing is deleted of a job that may go on. Final weights, models and desired runs are always kept.
    """

    checkpoints: float | None = 30 * _DAY
    spools: float | None = 90 * _DAY
    """Metrics, which are in MLflow by then: while they are not, they are kept."""
    logs: float | None = 90 * _DAY
    code: float | None = 90 * _DAY
    """Shipped code that no other job needs."""
    events: float | None = 90 * _DAY
    """All but a job's last one."""
    jobs: float | None = 365 * _DAY
    """What the ledger knows of a job; as long as anything else of it is kept."""

    @property
    def jobs_at_least(self) -> float | None:
        """``jobs``, or the longest of the others: whether a job has ended can be asked as long as it is known."""
        kept = [self.checkpoints, self.spools, self.logs, self.code, self.events, self.jobs]
        return None if None in kept else max(one for one in kept if one is not None)


DEFAULT_RETENTION = Retention()


def home(environ: Mapping[str, str] = os.environ) -> Home:
    """``EPOCHAL_HOME``, else the platform's folder for user data.

    Raises:
        UsageError: there is no such folder, or its name is no text, which databases cannot have in their URLs.
    """
    hint = "set EPOCHAL_HOME to another folder"
    try:
        root = _root(environ)
    except RuntimeError as error:
        raise UsageError(f"the folder of `~` is not known: {said(error)}", hint) from error
    if not is_text(str(root)):
        raise UsageError(f"the home {str(root)!a} is not UTF-8", hint)
    return Home(root)


def _root(environ: Mapping[str, str]) -> Path:
    if configured := environ.get("EPOCHAL_HOME"):
        return Path(configured).expanduser().absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "epochal"
    data = environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(data) / "epochal"


def is_text(path: str) -> bool:
    """Whether the bytes of a path are UTF-8. Python has others as lone surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in path)


def tracking_uri(environ: Mapping[str, str] = os.environ) -> str:
    """Where runs are recorded: ``MLFLOW_TRACKING_URI``, else a SQLite file in the home.

    Raises:
        UsageError: it is no URL.
    """
    uri = environ.get("MLFLOW_TRACKING_URI") or home(environ).tracking_uri
    try:
        urlsplit(uri)
    except ValueError as error:
        hint = "set it to an MLflow server's (http://127.0.0.1:5000) or a database's (sqlite:///FILE)"
        raise UsageError(f"MLFLOW_TRACKING_URI is no URL: {said(error)}", hint) from None
    return uri


def tracking_page(uri: str, environ: Mapping[str, str] = os.environ) -> str:
    """Where people find in a browser what is recorded at ``uri``: ``EPOCHAL_TRACKING_PAGE``, where MLflow has another
    address for agents, as within a cluster."""
    return environ.get("EPOCHAL_TRACKING_PAGE") or uri


def sqlite_url(path: Path) -> str:
    """SQLAlchemy's URL of a SQLite file, whatever its name holds.

    >>> sqlite_url(Path("/data/100% mine?/ledger.db"))
    'sqlite:////data/100%25%20mine%3F/ledger.db'
    """
    return path.absolute().as_uri().replace("file://", "sqlite:///", 1)
