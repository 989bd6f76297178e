"""`epochal run`: from a checked spec to a job in the ledger, with everything it needs in the storage root."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from epochal.agent.job_folder import Origin, weights_named, write_desired_run
from epochal.engine.code import Package, pack
from epochal.ledger.ledger import Ledger
from epochal.ledger.values import Job
from epochal.settings import Home
from epochal.spec.job import JobSpec
from epochal.spec.load import LoadedSpec
from epochal.tracking.environment import write_environment


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
    folder = home.job(job.id)
    write_desired_run(folder, job, spec, write_environment(folder, _code_folder(loaded), command))
    return job


def with_weights_found(spec: JobSpec, ledger: Ledger, home: Home, folder: Path) -> JobSpec:
    """``spec`` with ``train.init_from`` as an absolute path: of a job's folder, or of a file or checkpoint."""
    named = spec.train.init_from
    if named is None:
        return spec
    path = weights_named(named, folder, ledger.job, home)
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
