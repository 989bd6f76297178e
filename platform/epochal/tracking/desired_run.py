"""The desired run: what a job's run should look like in MLflow, as one value in the job's folder."""

from __future__ import annotations

import getpass
import json
import logging
import os
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from epochal.errors import NotFoundError
from epochal.files import write_atomically
from epochal.redaction import said
from epochal.spec.job import JobSpec

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]

CLOSED_AS: Mapping[str, Status] = MappingProxyType(
    {"SUCCEEDED": "FINISHED", "FAILED": "FAILED", "STOPPED": "KILLED", "PAUSED": "KILLED"}
)
"""The status that tells the same truth as a job's state; while a job is in any other one, its run is open."""

JOB_ID_TAG = "epochal.job_id"
REASON_TAG = "epochal.reason"
MAX_KEY = 250
MAX_PARAM_VALUE = 6000
MAX_TAG_VALUE = 5000
"""MLflow's own limits are 6,000 for a parameter and 8,000 or, in older servers, 5,000 for a tag."""
_UNSUPPORTED = re.compile(r"[^/\w.\- ]")
_FILE = "run.json"

_logger = logging.getLogger(__name__)


def closed_by(state: str, reason: str | None, at: float) -> dict[str, Any]:
    """What a job that came to this state changes in its desired run; nothing where the run stays open.

    ``at``: when it came to it, in Unix seconds; the run ended then, and not when somebody noticed.

    >>> closed_by("FAILED", "HANG", 17.0)
    {'status': 'FAILED', 'reason': 'HANG', 'end_time': 17.0}
    """
    return {"status": CLOSED_AS[state], "reason": str(reason or ""), "end_time": at} if state in CLOSED_AS else {}


@dataclass(frozen=True)
class DatasetUsed:
    """A dataset input of the run; ``digest`` is cut to the 36 characters that MLflow takes."""

    name: str
    digest: str
    source: str
    context: str = "training"


@dataclass(frozen=True, kw_only=True)
class DesiredRun:
    """The run of one job. Times are Unix seconds; ``params`` and ``tags`` are text, as MLflow stores them.

    ``params`` never change once sent: what may differ between two attempts (world size, attempts, reason) is a tag.
    """

    job_id: str
    experiment: str
    name: str
    description: str = ""
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    dataset: DatasetUsed | None = None
    status: Status = "RUNNING"
    reason: str = ""
    start_time: float = field(default_factory=time.time)
    end_time: float | None = None

    @classmethod
    def of(cls, job_id: str, spec: JobSpec, resolved: Mapping[str, Any] | None = None) -> DesiredRun:
        """That of a new job. ``resolved`` is the spec with every default filled in, where that differs."""
        return cls(
            job_id=job_id,
            experiment=spec.experiment_name,
            name=spec.name,
            description=spec.description,
            params=params_of(spec.model_dump(mode="json") if resolved is None else resolved),
            tags=dict(spec.tags),
        )

    @classmethod
    def load(cls, folder: Path) -> DesiredRun:
        """The one in a job's folder.

        Raises:
            NotFoundError: the folder has none.
            OSError, ValueError, TypeError: it cannot be read.
        """
        try:
            stored = json.loads((folder / _FILE).read_text())
        except FileNotFoundError:
            raise NotFoundError("desired run", str(folder)) from None
        if not isinstance(stored, dict):
            raise ValueError(f"{_FILE} holds no JSON object")
        dataset = stored.pop("dataset", None)
        known = {name: value for name, value in stored.items() if name in cls.__dataclass_fields__}
        return cls(**known, dataset=DatasetUsed(**dataset) if dataset else None)

    def save(self, folder: Path) -> None:
        write_atomically(folder / _FILE, json.dumps(asdict(self), indent=1))

    def changed(self, **changes: Any) -> DesiredRun:
        """A copy with fields replaced; ``tags`` are added to those there are.

        A status other than RUNNING gets an end time, RUNNING clears it and the reason.
        """
        if tags := changes.pop("tags", None):
            changes["tags"] = {**self.tags, **tags}
        status = changes.get("status", self.status)
        if status == "RUNNING":
            changes = {"reason": "", "end_time": None, **changes}
        elif self.end_time is None:
            changes = {"end_time": time.time(), **changes}
        return replace(self, **changes)

    def all_params(self) -> dict[str, str]:
        """The parameters as MLflow has them."""
        return {clean_key(name): cut(value, MAX_PARAM_VALUE) for name, value in self.params.items()}

    def all_tags(self) -> dict[str, str]:
        """The tags as MLflow has them: its own, and what MLflow and ``runs`` find the run by."""
        tags = {clean_key(name): tag(value) for name, value in self.tags.items()}
        # The tags of the spec may replace the first three and none of the last: runs are found by those.
        return {
            "mlflow.user": _user(),
            "mlflow.source.name": "epochal",
            "mlflow.source.type": "JOB",
            **tags,
            "mlflow.runName": self.name,
            "mlflow.note.content": tag(self.description),
            JOB_ID_TAG: self.job_id,
            REASON_TAG: tag(self.reason),
        }


def desired_run_path(folder: Path) -> Path:
    return folder / _FILE


def desired_run_time(folder: Path) -> int | None:
    """When the record in a job's folder was changed last, in ns; None where the folder has none."""
    try:
        return desired_run_path(folder).stat().st_mtime_ns
    except FileNotFoundError:
        return None


def params_of(resolved: Mapping[str, Any]) -> dict[str, str]:
    """The parameters of a run: what the spec says about the training, flattened.

    Left out are what MLflow shows elsewhere (name, experiment, description, tags) and ``env``, whose values are
    nobody's business but the job's.
    """
    elsewhere = {"version", "name", "experiment", "description", "tags", "env", "secrets"}
    return flatten({name: value for name, value in resolved.items() if name not in elsewhere and value is not None})


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested mappings as dotted keys, values as text.

    >>> flatten({"train": {"lr": 0.001, "compile": False}, "model": {"params": {"channels": [32, 64]}}})
    {'train.lr': '0.001', 'train.compile': 'false', 'model.params.channels': '[32, 64]'}
    """
    flat: dict[str, str] = {}
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{key}."))
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            flat[key] = text
    return flat


def clean_key(key: str) -> str:
    """A key in characters, and of a length, that MLflow takes; long ones keep a digest of the whole."""
    return cut(_UNSUPPORTED.sub("_", key), MAX_KEY)


def tag(text: str) -> str:
    """As MLflow takes it for a tag's value: of a longer one the beginning, and a sign that there was more."""
    return text if len(text) <= MAX_TAG_VALUE else f"{text[: MAX_TAG_VALUE - 1]}…"


def cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    digest = sha256(text.encode()).hexdigest()[:12]
    return f"{text[: limit - 13]}_{digest}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an id without a name, as in many containers
        return str(os.getuid())


@dataclass(frozen=True)
class CheckpointPointer:
    """Where a checkpoint is, for the artifact ``checkpoints.json``; ``path`` is relative to the job's folder."""

    step: int
    path: str
    digest: str
    metrics: dict[str, float] = field(default_factory=dict)
    best: bool = False


def note_checkpoint(folder: Path, pointer: CheckpointPointer) -> None:
    """Add a checkpoint to the artifact ``checkpoints.json`` and take out those that have been deleted."""
    kept = [entry for entry in _checkpoints_there(folder) if entry["step"] != pointer.step]
    if pointer.best:
        kept = [{**entry, "best": False} for entry in kept]
    _write_checkpoints(folder, sorted([*kept, asdict(pointer)], key=lambda entry: int(entry["step"])))


def forget_checkpoints(folder: Path) -> None:
    """Take out of the artifact ``checkpoints.json`` those that have been deleted."""
    if _checkpoints_file(folder).exists():
        _write_checkpoints(folder, _checkpoints_there(folder))


def _checkpoints_file(folder: Path) -> Path:
    return artifacts_folder(folder) / "checkpoints.json"


def _checkpoints_there(folder: Path) -> list[dict[str, Any]]:
    path = _checkpoints_file(folder)
    try:
        known = json.loads(path.read_text())["checkpoints"] if path.exists() else []
        return [entry for entry in known if (folder / entry["path"]).exists()]
    except (ValueError, KeyError, TypeError) as error:  # a disk that lost power
        _logger.warning("%s cannot be read and is written anew: %s", path, said(error))
        return []


def _write_checkpoints(folder: Path, entries: list[dict[str, Any]]) -> None:
    write_atomically(_checkpoints_file(folder), json.dumps({"folder": str(folder), "checkpoints": entries}, indent=1))


def artifacts_folder(folder: Path) -> Path:
    """What is uploaded as it is."""
    return folder / "artifacts"


def model_folder(folder: Path) -> Path:
    """The final model in MLflow's format, registered with the run."""
    return folder / "model" / "mlflow"
