"""What a worker of its own does once a gang has gone: package the model that was trained, for MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from epochal.catalog.build import build_model
from epochal.engine import served_program
from epochal.engine.served_program import export_program
from epochal.redaction import Redactor
from epochal.spec.job import JobSpec
from epochal.tracking.desired_run import model_folder
from epochal.tracking.model import save_model, save_program
from epochal.training import example, weights

if TYPE_CHECKING:
    from epochal.engine.worker import WorkerContext


@runtime_checkable
class UsedOtherwise(Protocol):
    """A model that is used otherwise than it is trained: of a GAN the generator draws, and the data are no input."""

    def packaged(self, samples: Mapping[str, Tensor]) -> tuple[nn.Module, Mapping[str, Tensor]]:
        """What predicts, and two samples (2, ...) of each field that it is called with, by name and in its order.

        ``samples`` are two of each of the data's inputs.
        """


def package(spec: Mapping[str, Any], context: WorkerContext) -> dict[str, str]:
    """The final model of the job with the resolved ``spec`` in MLflow's format; tags for the run.

    It is built anew, because the trained one was wrapped, or sharded among the workers.
    """
    # Tracing a large model may take minutes: the watchdog allows this phase more than the others.
    context.control.tick("export", 0)
    samples: Mapping[str, Tensor]
    samples, info = example.read(context.folder)
    model = build_model(JobSpec.from_stored(dict(spec)).model, info)
    weights.start_from(model, context.folder / weights.FILE)
    if isinstance(model, UsedOtherwise):
        model, samples = model.packaged(samples)
    arrays, folder = {name: tensor.numpy() for name, tensor in samples.items()}, model_folder(context.folder)
    file = context.folder / "model" / "program.pt2"
    if len(arrays) == 1 and not _gives_names(model, samples):
        tags = save_model(model, next(iter(arrays.values())), folder).tags
    else:
        try:
            outputs = export_program(model, samples, file)
            tags = save_program(file, Path(served_program.__file__), (arrays, outputs), folder).tags
        finally:
            file.unlink(missing_ok=True)  # as large as the model
    redactor = Redactor.of_variables(spec.get("secrets", ()))  # in what a library says about the model
    return {name: redactor.text(text) for name, text in tags.items()}


@torch.no_grad()
def _gives_names(model: nn.Module, samples: Mapping[str, Tensor]) -> bool:
    """Whether its outputs are a named tuple, as a detector's."""
    return hasattr(model.eval()(*samples.values()), "_asdict")
