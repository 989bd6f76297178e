"""The part of ``sync`` that registers a job's final model with its run, file by file."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from epochal.files import leads_out
from epochal.tracking.desired_run import JOB_ID_TAG, model_folder
from epochal.tracking.metric_spool import last_steps
from epochal.tracking.obstacle import ArtifactError
from epochal.tracking.sync_state import SyncState, model_digest

MODEL_TAG = "epochal.model_digest"
MODEL_NAME = "model"
_CHANGED_IN_URLS = re.compile("[#?]|%[0-9A-Fa-f]{2}")
"""MLflow's client puts names into the address as they are."""


def send_model(client: Any, folder: Path, state: SyncState, saved: Callable[[], None]) -> None:
    """Make the model in ``folder`` a logged model of the run, loadable as ``runs:/<run>/model``.

    ``saved`` is called after each step that is remembered in ``state``, and may raise to stop there.
    """
    digest = model_digest(folder)
    if digest in {"", state.model}:
        return
    if state.model_sending != digest:
        state.model_id = _find(client, state, digest) or _create(client, state, digest, folder.name)
        state.model_sending, state.model_files = digest, []
        saved()
    _upload(client, folder, state, saved)
    client.finalize_logged_model(state.model_id, "READY")
    _attach(client, state, step=max(last_steps(folder).values(), default=0))
    state.model, state.model_sending, state.model_files = digest, "", []
    saved()


def why_not_sent(client: Any, state: SyncState, path: Path, name: str, jobs: Path) -> str:
    """Why the file at ``path`` is never stored under ``name``; empty where it is."""
    if leads_out(path, jobs):
        return "it is a link out of the jobs' folders, and is not followed"
    if path.is_symlink() and not path.exists():
        return "it is a link that leads nowhere"
    if _CHANGED_IN_URLS.search(name):
        store = client.get_run(state.run_id).info.artifact_uri
        if store.startswith(("mlflow-artifacts:", "http")):
            return "MLflow's client would store it under another name: rename it, without # ? and % before two digits"
    return ""


@contextmanager
def storing(path: Path, name: str) -> Iterator[None]:
    """
    Raises:
        ArtifactError: the store did not take the file; what the libraries of stores raise has no common class.
    """
    try:
        yield
    except Exception as error:
        if not path.exists():  # replaced, or its checkpoint deleted, meanwhile
            raise
        raise ArtifactError(name) from error


def _find(client: Any, state: SyncState, digest: str) -> str | None:
    found = client.search_logged_models(
        [state.experiment_id], f"source_run_id = '{state.run_id}' AND tags.`{MODEL_TAG}` = '{digest}'", max_results=1
    )
    return str(found[0].model_id) if found else None


def _create(client: Any, state: SyncState, digest: str, job_id: str) -> str:
    tags = {JOB_ID_TAG: job_id, MODEL_TAG: digest}
    model = client.create_logged_model(state.experiment_id, name=MODEL_NAME, source_run_id=state.run_id, tags=tags)
    return str(model.model_id)


def _upload(client: Any, folder: Path, state: SyncState, saved: Callable[[], None]) -> None:
    """Upload the files; the description last, naming the run and the model that it now belongs to."""
    source, jobs = model_folder(folder), folder.parent
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        name = path.relative_to(source).as_posix()
        if name == "MLmodel" or name in state.model_files:
            continue
        if why := why_not_sent(client, state, path, name, jobs):
            state.refused.append(f"model/{name}: {why}")
            state.model_files.append(name)
            continue
        parent = Path(name).parent.as_posix()
        with storing(path, f"model/{name}"):
            client.log_model_artifact(state.model_id, str(path), None if parent == "." else parent)
        state.model_files.append(name)
        saved()
    description = yaml.safe_load((source / "MLmodel").read_text())
    model_id = state.model_id
    description |= {"run_id": state.run_id, "model_id": model_id, "artifact_path": f"models:/{model_id}"}
    with tempfile.TemporaryDirectory() as scratch:
        completed = Path(scratch) / "MLmodel"
        completed.write_text(yaml.safe_dump(description))
        with storing(completed, "model/MLmodel"):
            client.log_model_artifact(model_id, str(completed))


def _attach(client: Any, state: SyncState, step: int) -> None:
    from mlflow.entities import LoggedModelOutput

    outputs = client.get_run(state.run_id).outputs
    if outputs is not None and any(output.model_id == state.model_id for output in outputs.model_outputs):
        return
    client.log_outputs(state.run_id, [LoggedModelOutput(state.model_id, step)])
