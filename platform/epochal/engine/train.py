"""What a worker of a training job does: build, join the gang, train, and leave the weights behind."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epochal.engine.payload import TrainPayload
from epochal.errors import EpochalError
from epochal.spec.job import JobSpec
from epochal.tracking.metric_spool import MetricSpool
from epochal.tracking.recorder import NullRecorder, Recorder
from epochal.training import example
from epochal.training.check import summarized
from epochal.training.control import Noted, Prepared, Progress
from epochal.training.data_summary import MOST, tidy
from epochal.training.fit import FitResult, fit
from epochal.training.loader import start_early
from epochal.training.process_group import join
from epochal.training.segment import RESUMED
from epochal.training.setup import Setup, prepare

if TYPE_CHECKING:
    from epochal.engine.worker import WorkerContext

_log = logging.getLogger(__name__)


def train(payload: TrainPayload, context: WorkerContext) -> dict[str, Any]:
    """Train as one worker; the fields of its ``FitResult``."""
    spec = JobSpec.from_stored(dict(payload.spec))
    check_secrets(spec)
    if spec.data.loader_workers:
        start_early()
    setup = prepare(spec, data_folder(payload.data_folder, context))
    with ExitStack() as stack:
        recorder = _recorder(context)
        stack.callback(recorder.close)
        if context.worker.local_rank == 0:
            stack.enter_context(sampler(context, step=lambda: context.control.step))
        if context.worker.is_first:
            context.control.report(prepared(setup))
            for note in setup.checked.notes:
                context.control.report(Noted(note))
        stack.enter_context(join(context.worker, context.rendezvous, context.store))
        result = fit(setup, context.worker, context.folder, recorder, context.control, RESUMED)
    if context.worker.is_first and result.weights is not None:
        _tell_export(context, result)
        keep_example(setup, context.folder)
    return dataclasses.asdict(result)


def data_folder(told: str, context: WorkerContext) -> Path:
    """What relative paths of the data start from: the spec's own folder where this machine has it, else the code's."""
    folder = Path(told)
    return context.code if context.code is not None and not (told and folder.is_dir()) else folder


def check_secrets(spec: JobSpec) -> None:
    """They are variables that this process was started with; nothing of Epochal ever holds their values."""
    missing = [name for name in spec.secrets if name not in os.environ]
    if missing:
        raise EpochalError(
            f"secrets are missing here: {', '.join(missing)}",
            "set them where Ray's nodes are started; for a private Ray, where `epochal run` or `epochal up` is",
        )


def _recorder(context: WorkerContext) -> Recorder:
    if not context.worker.is_first:
        return NullRecorder()
    return MetricSpool(context.folder, f"attempt-{context.attempt}-rank-0")


def sampler(context: WorkerContext, step: Callable[[], int]) -> Any:
    """The node's metrics, in a spool of their own: every node has a writer."""
    from epochal.tracking.system import SystemSampler

    node = f"node{context.number}"
    spool = MetricSpool(context.folder, f"attempt-{context.attempt}-{node}", repeat=True)
    return SystemSampler(spool, node, step)


def prepared(setup: Setup) -> Prepared:
    return Prepared(
        data=summarized(setup.spec.data.name, setup.data, setup.checked.notes).first(MOST).worded(tidy),
        parameters=sum(parameter.numel() for parameter in setup.model.parameters()),
    )


def _tell_export(context: WorkerContext, result: FitResult) -> None:
    context.control.tick("export", result.step)
    whole = int(result.epochs)
    context.control.report(Progress("export", result.step, result.step, whole, result.epochs, result.metrics))


def keep_example(setup: Setup, folder: Path) -> None:
    """For the packaging. The training is done, and nothing that goes wrong here may undo that."""
    try:
        example.keep(setup.data, setup.spec, folder)
    except Exception:
        _log.warning("no example of the input was kept, so that the model cannot be packaged", exc_info=True)
