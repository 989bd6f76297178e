"""From a checked spec to a job in the ledger, with everything it needs in the storage root."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from epochal.engine.code import Package, pack
from epochal.errors import NotFoundError
from epochal.ledger.ledger import Ledger
from epochal.ledger.values import Job
from epochal.settings import Home
from epochal.spec.job import JobSpec
from epochal.spec.load import LoadedSpec
from epochal.tracking.environment import write_environment
from epochal.tracking.record import RunRecord, artifacts_folder, write_atomically


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


def submit(
    ledger: Ledger, home: Home, loaded: LoadedSpec, command: tuple[str, ...], warn: Callable[[str], None]
) -> Job:
    """Pack the code, queue the job, and write down what it was submitted with.

    Raises:
        CodeError: the code cannot be packed (too large, a link that leaves the folder).
        NotFoundError: ``train.init_from`` names nothing that is there.
    """
    spec = with_weights_found(loaded.spec, ledger, home, loaded.folder)
    package = _packed(home, loaded, warn)
    origin = Origin(str(loaded.folder), package.digest if package else None, command, loaded.source)
    job = ledger.submit(
        spec.model_dump(mode="json"),
        name=spec.name,
        priority=spec.priority,
        origin=asdict(origin),
    )
    _write_down(home.job(job.id), job, origin, _code_folder(loaded))
    return job


def _write_down(folder: Path, job: Job, origin: Origin, code: Path) -> None:
    """The run's record, and its artifacts: the resolved spec and what it was submitted with."""
    spec = JobSpec.from_stored(dict(job.spec))
    tags = {"epochal.code_digest": origin.code} if origin.code else {}
    tags |= write_environment(folder, code, origin.command)
    RunRecord.of(job.id, spec).changed(tags=tags).save(folder)
    write_atomically(artifacts_folder(folder) / "job.yaml", yaml.safe_dump(dict(job.spec), sort_keys=False))


def origin_of(job: Job) -> Origin:
    """What ``submit`` wrote down."""
    stored = dict(job.origin)
    return Origin(stored["folder"], stored.get("code"), tuple(stored.get("command", ())), stored.get("file", ""))


def package_of(home: Home, origin: Origin) -> Package | None:
    """The code package of a job, from the storage root."""
    if origin.code is None:
        return None
    return Package(origin.code, home.packages / f"{origin.code}.zip", (), 0)


def with_weights_found(spec: JobSpec, ledger: Ledger, home: Home, folder: Path) -> JobSpec:
    """``spec`` with ``train.init_from`` as an absolute path: of a job's folder, or of a file or checkpoint."""
    named = spec.train.init_from
    if named is None:
        return spec
    path = (folder / named).absolute()
    if not path.exists():
        try:
            path = home.job(ledger.job(named).id)
        except NotFoundError:
            hint = "give a job id, the folder of a checkpoint, or a .safetensors file relative to the spec"
            raise NotFoundError("job, checkpoint or file of weights", named, hint=hint) from None
    train = spec.train.model_copy(update={"init_from": str(path)})
    return spec.model_copy(update={"train": train})


def _code_folder(loaded: LoadedSpec) -> Path:
    return loaded.folder / loaded.spec.code.dir if loaded.spec.code else loaded.folder


def _packed(home: Home, loaded: LoadedSpec, warn: Callable[[str], None]) -> Package | None:
    if loaded.spec.code is None:
        return None
    package = pack(_code_folder(loaded), home.packages, loaded.spec.code.exclude)
    if package.skipped:
        warn(f"not shipped, since they look like secrets: {', '.join(package.skipped)}")
    return package
