"""Save a trained model in MLflow's format: signature, input example, loadable without Epochal, servable."""

from __future__ import annotations

import importlib.metadata
import logging
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from epochal.redaction import named
from epochal.tracking.connection import quiet_mlflow

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

FORMAT_TAG = "epochal.model_format"
FALLBACK_TAG = "epochal.model_format_reason"
_REQUIREMENTS = ("torch", "numpy")


@dataclass(frozen=True)
class SavedModel:
    """How a model was saved. ``format`` is ``pt2`` (a traced graph, safe to load) or ``pickle``; ``reason`` says why
    the safer one was not possible."""

    folder: Path
    format: str
    reason: str = ""

    @property
    def tags(self) -> dict[str, str]:
        """For the desired run."""
        return {FORMAT_TAG: self.format, **({FALLBACK_TAG: self.reason} if self.reason else {})}


def save_model(
    module: nn.Module,
    example: np.ndarray[Any, Any],
    folder: Path,
    *,
    extra_files: Sequence[Path] = (),
    code_paths: Sequence[Path] = (),
    requirements: Sequence[str] = (),
) -> SavedModel:
    """Save ``module`` into ``folder``, which is replaced. No tracking server is needed.

    ``module`` is on the CPU and not wrapped (DDP, FSDP, ``torch.compile``); it maps one tensor to one tensor.
    ``example``: (batch, ...) with a batch of at least 2, since an export of a single sample would take single samples
    only. ``code_paths`` are shipped with the model, for classes that pickle has to find; ``requirements`` are added to
    torch and numpy.

    A model whose control flow ``torch.export`` cannot trace is saved with pickle instead, and ``reason`` says so.

    Raises:
        ValueError: ``example`` holds fewer than 2 samples.
    """
    if len(example) < 2:
        raise ValueError(f"the example needs a batch of at least 2, not {len(example)}")
    quiet_mlflow()
    kept = {"extra_files": [str(path) for path in extra_files], "code_paths": [str(path) for path in code_paths]}
    arguments: dict[str, Any] = {name: paths for name, paths in kept.items() if paths}
    arguments["pip_requirements"] = [*_pinned(), *requirements]
    temporary = folder.with_name(f".{folder.name}.tmp")
    with _evaluating(module), _quietly():
        form, reason = _save(module, example, temporary, arguments)
    _serve_on_cpu(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    return SavedModel(folder, form, reason)


def save_program(
    program: Path, loader: Path, example: tuple[Mapping[str, np.ndarray[Any, Any]], Any], folder: Path
) -> SavedModel:
    """Save a traced model that is called with several named fields into ``folder``, which is replaced.

    ``loader`` is a file whose ``_load_pyfunc(program)`` gives what predicts; it is shipped with the ``program``.
    ``example`` is what goes in, (batch, ...) by name, and what comes out: both make the signature.
    """
    quiet_mlflow()
    import mlflow.pyfunc
    from mlflow.models import infer_signature

    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    mlflow.pyfunc.save_model(
        temporary,
        loader_module=loader.stem,
        data_path=str(program),
        code_paths=[str(loader)],
        signature=infer_signature(*example),
        input_example=dict(example[0]),
        pip_requirements=_pinned(),
    )
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    return SavedModel(folder, "pt2")


def _save(
    module: nn.Module, example: np.ndarray[Any, Any], folder: Path, arguments: Mapping[str, Any]
) -> tuple[str, str]:
    try:
        _save_as("pt2", module, example, folder, arguments)
    except Exception as error:  # torch.export raises many kinds, and none of them is the user's mistake
        _save_as("pickle", module, example, folder, arguments)
        return "pickle", f"torch.export: {' '.join(named(error).split())[:300]}"
    return "pt2", ""


def _save_as(
    form: str, module: nn.Module, example: np.ndarray[Any, Any], folder: Path, arguments: Mapping[str, Any]
) -> None:
    import mlflow.pytorch

    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    mlflow.pytorch.save_model(module, str(folder), serialization_format=form, input_example=example, **arguments)


def _serve_on_cpu(folder: Path) -> None:
    """A graph exported on the CPU cannot be moved: without this, MLflow tries to on a machine with a GPU."""
    path = folder / "MLmodel"
    description = yaml.safe_load(path.read_text())
    description["flavors"]["python_function"]["config"]["device"] = "cpu"
    path.write_text(yaml.safe_dump(description))


def _pinned() -> list[str]:
    # A local build label (2.13.0+cpu) is on no package index.
    return [f"{name}=={importlib.metadata.version(name).split('+')[0]}" for name in _REQUIREMENTS]


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without MLflow's warnings about pickle, and those of torch.export, which prints the graph that it gave up on."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
