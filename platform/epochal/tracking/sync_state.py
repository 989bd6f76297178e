"""The sync state: what MLflow already has of a job's folder, and so what is left. Nothing here imports mlflow."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from epochal.files import leads_out, locked, write_atomically
from epochal.tracking.desired_run import REASON_TAG, DesiredRun, artifacts_folder, desired_run_path, model_folder
from epochal.tracking.metric_spool import segments, unsent_segments
from epochal.tracking.obstacle import Obstacle
from epochal.tracking.sent_trials import SweepTrials
from epochal.tracking.trial_runs import journal_path
from epochal.urls import without_password

_FILE = "sync_state.json"
_LOCK = ".sync.lock"

_logger = logging.getLogger(__name__)


@dataclass
class SyncState:
    """The syncer's memory. Losing it costs time, not truth: what is sent again changes nothing in MLflow.

    ``uri`` is without its password. ``offsets``: bytes sent of each spool segment. ``artifacts``: size and modification
    time (ns) of each file sent. ``model`` is the digest of the model that was sent, ``model_sending`` of the one of
    which ``model_files`` are sent so far. ``improvements``: of a sweep's best objective, those sent. ``refused``: what
    MLflow will never take. ``obstacle``: the kind of what kept it from taking the rest, the last time; ``problem``:
    that in words, with the remedy; ``deleted``: whether it is that somebody deleted the run or its experiment.
    ``told`` and ``told_refused``: of which obstacle, and how much of what was refused, the job's ledger has heard.
    ``settled``: a fingerprint of the folder once all of it was sent.
    """

    uri: str = ""
    experiment_id: str = ""
    run_id: str = ""
    status: str = ""
    params: list[str] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    dataset: str = ""
    offsets: dict[str, int] = field(default_factory=dict)
    artifacts: dict[str, list[int]] = field(default_factory=dict)
    model: str = ""
    model_id: str = ""
    model_sending: str = ""
    model_files: list[str] = field(default_factory=list)
    improvements: int = 0
    refused: list[str] = field(default_factory=list)
    obstacle: str = ""
    problem: str = ""
    deleted: bool = False
    told: str = ""
    told_refused: int = 0
    settled: str = ""

    @classmethod
    def load(cls, folder: Path) -> SyncState:
        try:
            stored: Any = json.loads((folder / _FILE).read_text())
        except (FileNotFoundError, ValueError):
            return cls()
        if not isinstance(stored, dict):
            return cls()
        state = cls()
        for name, value in stored.items():
            if name in cls.__dataclass_fields__ and type(value) is type(getattr(state, name)):  # else it is damaged
                setattr(state, name, value)
        state.uri = without_password(state.uri)  # earlier versions kept it
        return state

    def forget_status(self) -> None:
        """Have what says how the run stands sent again: the server's reconciler may have changed it in MLflow."""
        if self.run_id:
            self.status = ""
            self.tags.pop(REASON_TAG, None)

    def met(self, obstacle: Obstacle | None) -> None:
        """What keeps MLflow from taking the rest; None where it took what there was."""
        self.obstacle, self.problem = (obstacle.kind, str(obstacle)) if obstacle else ("", "")
        self.deleted = obstacle is not None and obstacle.deleted

    def news(self) -> Iterator[str]:
        """What the job's ledger has not heard yet of how MLflow takes its run."""
        if self.obstacle not in ("", self.told):
            yield f"{self.problem}. Until then what MLflow lacks of this job is kept; it is sent once that is mended"
        elif self.told and not self.obstacle:
            yield "MLflow takes what there is of this job again"
        yield from (f"MLflow refuses to store {one}" for one in self.refused[self.told_refused :])

    def save(self, folder: Path) -> None:
        write_atomically(folder / _FILE, json.dumps(asdict(self)))


def sync_state_path(folder: Path) -> Path:
    return folder / _FILE


def newest_experiment(storages: Iterable[Path], uris: Iterable[str]) -> str | None:
    """MLflow's id of the experiment that jobs under these storage roots were sent to last, to one of ``uris``."""
    found = sorted((path.stat().st_mtime, path.parent) for root in storages for path in root.glob(f"jobs/*/{_FILE}"))
    sent = (SyncState.load(folder) for _, folder in reversed(found))
    known = {without_password(uri) for uri in uris}
    return next((one.experiment_id for one in sent if one.experiment_id and one.uri in known), None)


@dataclass(frozen=True)
class Outstanding:
    """What of a job's folder is not in MLflow yet."""

    run: bool
    params: tuple[str, ...]
    tags: tuple[str, ...]
    dataset: bool
    spool_bytes: int
    artifacts: tuple[str, ...]
    model: bool
    status: str
    trials: int
    best: bool

    def __bool__(self) -> bool:
        return any((*asdict(self).values(),))

    def __str__(self) -> str:
        parts = [
            "the run" if self.run else "",
            _count(self.params, "parameter"),
            _count(self.tags, "tag"),
            "the dataset" if self.dataset else "",
            f"{self.spool_bytes} bytes of metrics" if self.spool_bytes else "",
            _count(self.artifacts, "artifact"),
            "the model" if self.model else "",
            f"the status {self.status}" if self.status else "",
            f"what is new of {self.trials} trial{'s' if self.trials > 1 else ''}" if self.trials else "",
            "the best objective" if self.best else "",
        ]
        return ", ".join(part for part in parts if part) or "nothing"


def _count(names: tuple[str, ...], what: str) -> str:
    return f"{len(names)} {what}{'s' if len(names) > 1 else ''}" if names else ""


def outstanding(folder: Path, desired: DesiredRun, state: SyncState, trials: SweepTrials | None = None) -> Outstanding:
    """What is left to send. ``trials`` are those of the folder, where they have been read before."""
    trials = trials or SweepTrials(folder)
    trials.read()
    tags = desired.all_tags() | trials.best_tags(desired, state.run_id)
    files = artifact_files(folder)
    return Outstanding(
        run=not state.run_id,
        params=tuple(sorted(set(desired.all_params()) - set(state.params))),
        tags=tuple(name for name, value in tags.items() if state.tags.get(name) != value),
        dataset=desired.dataset is not None and state.dataset != desired.dataset.digest,
        spool_bytes=sum(size - offset for _, offset, size in unsent_segments(folder, state.offsets)),
        artifacts=tuple(name for name, stamp in files.items() if state.artifacts.get(name) != stamp),
        model=model_digest(folder) not in {"", state.model},
        status=desired.status if state.status != desired.status else "",
        trials=sum(1 for _ in trials.pending(desired, state.run_id)),
        best=len(trials.improvements(desired)) > state.improvements,
    )


def is_pending(folder: Path) -> bool:
    """Whether a job's folder has something to send; cheap where it was all sent long ago, or has no desired run."""
    if not desired_run_path(folder).exists():
        return False
    state = SyncState.load(folder)
    if state.settled and state.settled == fingerprint(folder):
        return False
    return bool(outstanding(folder, DesiredRun.load(folder), state))


def can_still_be_sent(folder: Path) -> bool:
    """``is_pending``, and nobody deleted in MLflow what it would be sent to."""
    return is_pending(folder) and not SyncState.load(folder).deleted


def has_news(folder: Path) -> bool:
    return any(SyncState.load(folder).news())


def tell_news(folder: Path, tell: Callable[[str], object]) -> None:
    """Have ``tell`` called with what was not told yet; where it raises, or gives False, that is told another time."""
    with folder_lock(folder) as mine:
        state = SyncState.load(folder)
        if not mine or not (news := list(state.news())):
            return
        if not all(tell(message) is not False for message in news):
            return
        state.told, state.told_refused = state.obstacle, len(state.refused)
        state.save(folder)


UNREADABLE = (OSError, ValueError, TypeError, AttributeError)
"""What a damaged folder raises, where it is read or where what was read is used."""


@contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Within the ``with`` block a damaged folder is told of, and holds up no other."""
    try:
        yield
    except UNREADABLE as error:
        _logger.warning("%s cannot be read and is not sent to MLflow: %s", folder, error)


def can_be_sent(folder: Path) -> bool:
    """``is_pending`` of a folder that may be damaged."""
    with readable(folder):
        return is_pending(folder)
    return False


def artifact_files(folder: Path) -> dict[str, list[int]]:
    """The files to upload, by name relative to the artifacts folder, with size and modification time (ns); without
    these a link that leads out of the jobs' folders, and is not followed, or nowhere.

    Names that start with a dot, such as files being written, are left out.
    """
    root, jobs = artifacts_folder(folder), folder.parent
    found: dict[str, list[int]] = {}
    for parent, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in names if not name.startswith(".")):
            path = Path(parent) / name
            there = path.exists()
            if leads_out(path, jobs) or (path.is_symlink() and not there):
                found[path.relative_to(root).as_posix()] = []
            elif there:  # else it has been removed meanwhile
                found[path.relative_to(root).as_posix()] = [path.stat().st_size, path.stat().st_mtime_ns]
    return found


def model_digest(folder: Path) -> str:
    """Identifies the saved model; empty where there is none."""
    description = model_folder(folder) / "MLmodel"
    return sha256(description.read_bytes()).hexdigest()[:32] if description.exists() else ""


def fingerprint(folder: Path, trials: SweepTrials | None = None) -> str:
    """Changes whenever something that ``sync`` reads may have changed. ``trials`` are those of the folder, where they
    have been read before."""
    stamps = [repr(artifact_files(folder))]
    of_trials: list[Path] = []
    if journal_path(folder).exists():
        of_trials = [journal_path(folder), *(trials or SweepTrials(folder)).open_spools()]
    for path in [desired_run_path(folder), model_folder(folder) / "MLmodel", *segments(folder), *of_trials]:
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        stamps.append(f"{path.relative_to(folder)}:{stat.st_mtime_ns}:{stat.st_size}")
    return sha256("|".join(stamps).encode()).hexdigest()[:32]


def folder_lock(folder: Path) -> AbstractContextManager[bool]:
    """Whether this process may send the folder's content: one at a time does."""
    return locked(folder / _LOCK, 0.0)
