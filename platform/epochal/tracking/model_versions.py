"""MLflow's model registry: a run's model as the version of a name, which those who serve it ask for by an alias."""

from __future__ import annotations

from typing import TYPE_CHECKING

from epochal.errors import ConflictError
from epochal.tracking.connection import connect, error_code
from epochal.tracking.runs import RunInfo, answering_or_refused

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

BEST = "best"
MODEL_ID_TAG = "epochal.model_id"
"""MLflow's registry in a database does not keep which logged model a version is of."""


def register(uri: str, run: RunInfo, name: str, alias: str = BEST) -> str:
    """Make the run's newest model a version of ``name`` and give that the alias, which another version loses.

    A model that is a version of that name already is not made one again. Returns the version; it loads as
    ``models:/<name>@<alias>``.

    Raises:
        ConflictError: the run has no model.
        UsageError: MLflow does not take such a name, or alias.
        UnreachableError: the tracking server does not answer.
    """
    if not run.models:
        hint = "a job's model is packaged once it has succeeded; `epochal runs sync` sends what waits"
        raise ConflictError(f"the run {run.name!r} ({run.short_id}) has no model", hint)
    model_id = run.models[-1]
    with answering_or_refused(uri):
        client = connect(uri)
        try:
            client.create_registered_model(name)
        except Exception as error:
            if error_code(error) != "RESOURCE_ALREADY_EXISTS":
                raise
        known = [found for found in client.search_model_versions(f"run_id = '{run.id}'") if found.name == name]
        made = next((found for found in known if found.tags.get(MODEL_ID_TAG) == model_id), None)
        made = made or client.create_model_version(
            name, _source(uri, client, model_id), run.id, tags={MODEL_ID_TAG: model_id}, model_id=model_id
        )
        client.set_registered_model_alias(name, alias, made.version)
    return str(made.version)


def _source(uri: str, client: MlflowClient, model_id: str) -> str:
    """Where the version's files are. A server looks that up by itself; the registry in a database would ask the one
    that ``MLFLOW_TRACKING_URI`` names, and make one in this folder where nothing does."""
    if uri.startswith(("http:", "https:")):
        return f"models:/{model_id}"
    return str(client.get_logged_model(model_id).artifact_location)
