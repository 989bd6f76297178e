"""The part of ``sync`` that registers a job's final model with its run, file by file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from epochal.tracking.record import JOB_ID_TAG, model_folder
from epochal.tracking.shipped import Shipped, model_digest
from epochal.tracking.spool import last_steps

MODEL_TAG = "epochal.model_digest"
MODEL_NAME = "model"


def send_model(client: Any, folder: Path, shipped: Shipped, saved: Callable[[], None]) -> None:
    """Make the model in ``folder`` a logged model of the run, loadable as ``runs:/<run>/model``.

    ``saved`` is called after each step that is remembered in ``shipped``, and may raise to stop there.
    """
    digest = model_digest(folder)
    if digest in {"", shipped.model}:
        return
    if shipped.model_sending != digest:
        shipped.model_id = _find(client, shipped, digest) or _create(client, shipped, digest, folder.name)
        shipped.model_sending, shipped.model_files = digest, []
        saved()
    _upload(client, model_folder(folder), shipped, saved)
    client.finalize_logged_model(shipped.model_id, "READY")
    _attach(client, shipped, step=max(last_steps(folder).values(), default=0))
    shipped.model, shipped.model_sending, shipped.model_files = digest, "", []
    saved()


def _find(client: Any, shipped: Shipped, digest: str) -> str | None:
    found = client.search_logged_models(
        [shipped.experiment_id],
        f"source_run_id = '{shipped.run_id}' AND tags.`{MODEL_TAG}` = '{digest}'",
        max_results=1,
    )
    return str(found[0].model_id) if found else None


def _create(client: Any, shipped: Shipped, digest: str, job_id: str) -> str:
    tags = {JOB_ID_TAG: job_id, MODEL_TAG: digest}
    model = client.create_logged_model(shipped.experiment_id, name=MODEL_NAME, source_run_id=shipped.run_id, tags=tags)
    return str(model.model_id)


def _upload(client: Any, source: Path, shipped: Shipped, saved: Callable[[], None]) -> None:
    """Upload the files; the description last, naming the run and the model that it now belongs to."""
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        name = path.relative_to(source).as_posix()
        if name == "MLmodel" or name in shipped.model_files:
            continue
        parent = Path(name).parent.as_posix()
        client.log_model_artifact(shipped.model_id, str(path), None if parent == "." else parent)
        shipped.model_files.append(name)
        saved()
    description = yaml.safe_load((source / "MLmodel").read_text())
    model_id = shipped.model_id
    description |= {"run_id": shipped.run_id, "model_id": model_id, "artifact_path": f"models:/{model_id}"}
    with tempfile.TemporaryDirectory() as folder:
        completed = Path(folder) / "MLmodel"
        completed.write_text(yaml.safe_dump(description))
        client.log_model_artifact(model_id, str(completed))


def _attach(client: Any, shipped: Shipped, step: int) -> None:
    from mlflow.entities import LoggedModelOutput

    outputs = client.get_run(shipped.run_id).outputs
    if outputs is not None and any(output.model_id == shipped.model_id for output in outputs.model_outputs):
        return
    client.log_outputs(shipped.run_id, [LoggedModelOutput(shipped.model_id, step)])
