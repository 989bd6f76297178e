"""`epochal run`: from a checked spec to a job in the ledger, with everything it needs in the storage root."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from epochal.agent.job_folder import Origin, weights_named, write_desired_run
from epochal.engine.code import pack_of
from epochal.ledger.ledger import Ledger
from epochal.ledger.values import Job
from epochal.settings import Home
from epochal.spec.job import JobSpec
from epochal.spec.load import LoadedSpec
from epochal.tracking.environment import write_environment


def submit(ledger: Ledger, home: Home, loaded: LoadedSpec, command: tuple[str, ...]) -> Job:
    """Pack the code, queue the job, and write down what it was submitted with.

    Raises:
        CodeError: the code cannot be packed (too large, a link that leaves the folder).
        NotFoundError: ``train.init_from`` names nothing that is there.
        SpecError: ``sweep.search.from`` does.
    """
    spec = ledger.with_earlier_found(with_weights_found(loaded.spec, ledger, home, loaded.folder))
    package = pack_of(loaded, home.packages)
    origin = Origin(str(loaded.folder), package.digest if package else None, command, loaded.source)
    job = ledger.submit(
        spec.model_dump(mode="json"),
        name=spec.name,
        priority=spec.priority,
        origin=asdict(origin),
    )
    folder = home.job(job.id)
    write_desired_run(folder, job, spec, write_environment(folder, loaded.code_folder, command))
    return job


def with_weights_found(spec: JobSpec, ledger: Ledger, home: Home, folder: Path) -> JobSpec:
    """``spec`` with ``train.init_from`` as an absolute path: of a job's folder, or of a file or checkpoint."""
    named = spec.train.init_from
    if named is None:
        return spec
    path = weights_named(named, folder, ledger.job, home)
    train = spec.train.model_copy(update={"init_from": str(path)})
    return spec.model_copy(update={"train": train})
