"""MLflow's model registry: a run's model as the version of a name, which those who serve it ask for by an alias."""

from __future__ import annotations

from epochal.errors import ConflictError
from epochal.tracking.connection import connect, error_code
from epochal.tracking.runs import RunInfo, answering_or_refused

BEST = "best"


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
    source = f"models:/{run.models[-1]}"
    with answering_or_refused(uri):
        client = connect(uri)
        try:
            client.create_registered_model(name)
        except Exception as error:
            if error_code(error) != "RESOURCE_ALREADY_EXISTS":
                raise
        known = [found for found in client.search_model_versions(f"run_id = '{run.id}'") if found.name == name]
        made = next((found for found in known if found.model_id == run.models[-1]), None)
        made = made or client.create_model_version(name, source, run.id, model_id=run.models[-1])
        client.set_registered_model_alias(name, alias, made.version)
    return str(made.version)
