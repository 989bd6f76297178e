"""The part of ``sync`` that finds the experiment of a job's run, or makes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from epochal.tracking.connection import artifact_location, error_code
from epochal.tracking.obstacle import BlockedError, Obstacle, no_mlflow

if TYPE_CHECKING:
    from mlflow.entities import Experiment

EXPERIMENT_KIND = "mlflow.experimentKind"
"""What MLflow's pages show of an experiment: runs and models, or traces of language models. People may change it."""
_KIND = "custom_model_development"


def find_or_create(client: Any, uri: str, name: str) -> str:
    """The id of the experiment with that name.

    Raises:
        BlockedError: it is deleted, or what answers at ``uri`` is no MLflow.
    """
    if found := client.get_experiment_by_name(name):
        if found.name != name:
            raise BlockedError(no_mlflow(uri, f"asked for the experiment {name!r}, it gives {found.name!r}"))
        check_experiment(found)
        if EXPERIMENT_KIND not in found.tags:
            client.set_experiment_tag(found.experiment_id, EXPERIMENT_KIND, _KIND)
        return str(found.experiment_id)
    try:
        where = artifact_location(uri, name)
        return str(client.create_experiment(name, artifact_location=where, tags={EXPERIMENT_KIND: _KIND}))
    except Exception as error:
        if error_code(error) != "RESOURCE_ALREADY_EXISTS":
            raise
        return str(client.get_experiment_by_name(name).experiment_id)  # somebody else was first


def check_experiment(found: Experiment) -> None:
    """
    Raises:
        BlockedError: it is deleted.
    """
    if found.lifecycle_stage == "deleted":
        remedy = f"`mlflow experiments restore --experiment-id {found.experiment_id}` brings it back"
        said = f"its experiment {found.name!r} was deleted in MLflow"
        raise BlockedError(Obstacle("deleted experiment", said, remedy, deleted=True))
