"""A job's folder in the storage root: made by whoever has the job first, from what it was submitted with."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from epochal.agent.port import JobSource
from epochal.agent.retention import ENDED
from epochal.engine.code import Package
from epochal.errors import NotFoundError, UsageError
from epochal.files import locked, write_atomically
from epochal.ledger.values import FullJob, Job
from epochal.redaction import said
from epochal.settings import Home
from epochal.spec.job import JobSpec
from epochal.tracking.desired_run import DesiredRun, artifacts_folder, desired_run_path
from epochal.tracking.environment import hardware
from epochal.training import checkpoint

_LOCK_SECONDS = 10.0


@dataclass(frozen=True)
class Origin:
    """Where a job came from: kept with it, so that a later attempt needs nothing else.

    ``folder`` is the spec's own, which relative paths of data start from; ``code`` is the digest of the shipped
    package; ``command`` is what was typed, ``file`` the spec's name.
    """

    folder: str
    code: str | None = None
    command: tuple[str, ...] = ()
    file: str = ""


def origin_of(job: FullJob) -> Origin:
    """What was written down when it was submitted."""
    stored = dict(job.origin)
    command = tuple(stored.get("command") or ())
    return Origin(stored.get("folder") or "", stored.get("code"), command, stored.get("file") or "")


def spec_of(job: FullJob) -> JobSpec:
    """
    Raises:
        UsageError: the ledger holds a spec that this version cannot read.
    """
    try:
        return JobSpec.from_stored(dict(job.spec))
    except ValueError as error:
        hint = "`epochal validate` says more about it; the agent may be older than the server"
        raise UsageError(f"this agent cannot read the job's spec: {said(error)}", hint) from error


def saved(folder: Path, done: int) -> str:
    """What of a training that has done so many steps is in a checkpoint, in words."""
    newest = max(checkpoint.steps(folder / checkpoint.FOLDER), default=0)
    if done == newest + 1:
        return f"step {done} is not saved"
    if done > newest:
        return f"steps {newest + 1} to {done} are not saved"
    return f"saved up to step {newest}" if newest else "nothing is saved"


def storage_id(root: Path) -> str:
    """The id of a storage root: random, and written there by whoever comes first.

    Agents whose folders are one and the same, on a shared disk, so have the same id, and others have not.
    """
    path = root / ".storage-id"
    with locked(path.with_name(".storage-id.lock"), _LOCK_SECONDS):
        if not path.exists():
            write_atomically(path, secrets.token_hex(8))
        return path.read_text(encoding="ascii")


def ensure(folder: Path, job: FullJob, spec: JobSpec) -> None:
    """Make the job's folder, where it is not there yet, from what its submitter sent along.

    The desired run comes last: a folder that has one is complete.
    """
    (folder / ENDED).unlink(missing_ok=True)  # of a sweep that goes on: nothing of it is old
    if desired_run_path(folder).exists():
        return
    origin = job.origin
    if environment := dict(origin.get("environment") or {}):
        described = json.dumps({**environment, "hardware": hardware()}, indent=1)
        write_atomically(artifacts_folder(folder) / "environment.json", described)
    if diff := origin.get("git_diff"):
        write_atomically(artifacts_folder(folder) / "git.diff", str(diff))
    tags = {str(name): str(value) for name, value in dict(origin.get("tags") or {}).items()}
    write_desired_run(folder, job, spec, tags)


def write_desired_run(folder: Path, job: FullJob, spec: JobSpec, tags: Mapping[str, str]) -> None:
    """The desired run with these tags, and the resolved spec as an artifact."""
    write_atomically(artifacts_folder(folder) / "job.yaml", yaml.safe_dump(dict(job.spec), sort_keys=False))
    code = origin_of(job).code
    all_tags = {**({"epochal.code_digest": code} if code else {}), **tags}
    DesiredRun.of(job.id, spec).changed(tags=all_tags).save(folder)


def package_of(source: JobSource, home: Home, job: FullJob) -> Package | None:
    """The job's code in the storage root, fetched where it is not there; None where it ships none.

    Raises:
        NotFoundError: nobody has it any more.
        UnreachableError: the source does not answer.
    """
    digest = origin_of(job).code
    if digest is None:
        return None
    package = source.fetch_code(digest, home.packages)
    os.utime(package)  # what is in use is not old, see ``retention``
    return Package(digest, package, (), 0)


def payload_spec(source: JobSource, home: Home, job: FullJob) -> dict[str, Any]:
    """The spec as the workers get it: ``train.init_from`` is an absolute path.

    What it names may be gone once the job has a checkpoint of its own to go on from.

    Raises:
        NotFoundError: it names no job, checkpoint or file that is here.
    """
    spec = dict(job.spec)
    named = (spec.get("train") or {}).get("init_from")
    if named is None:
        return spec
    try:
        path = weights_named(str(named), Path(origin_of(job).folder), source.job, home)
    except NotFoundError:
        if not checkpoint.steps(home.job(job.id) / checkpoint.FOLDER):
            raise
        return spec
    return {**spec, "train": {**spec["train"], "init_from": str(path)}}


def weights_named(named: str, folder: Path, find: Callable[[str], Job], home: Home) -> Path:
    """What ``train.init_from`` means: a file or checkpoint, relative to the spec's ``folder``, or a job's folder.

    Raises:
        NotFoundError: none of these.
    """
    path = (folder / named).absolute()
    if os.path.exists(path):  # not `Path.exists`, which raises where a name is too long to be one of a file
        return path
    try:
        return home.job(find(named).id)
    except (NotFoundError, UsageError):  # the latter from a server's client: no job can be called as a path is
        hint = "give a job id, the folder of a checkpoint, or a .safetensors file relative to the spec"
        raise NotFoundError("job, checkpoint or file of weights", named, hint=hint) from None
