"""Pictures of what the model does with some validation samples: artifacts of the run."""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from epochal.catalog.data import Batch
from epochal.catalog.task import Draws, Samples
from epochal.files import write_atomically
from epochal.redaction import named
from epochal.tracking.desired_run import artifacts_folder
from epochal.training.parallel import Strategy
from epochal.training.setup import Setup

_log = logging.getLogger(__name__)
MOST_SAMPLES = 256
MOST_BYTES = 16 * 2**20
FIRST_SECONDS = 60.0
SHARE = 0.02
"""Of the time, that steps wait for pictures at the most; those that are left out are drawn after the last step."""

Kind = Literal["best", "last"]


class Kept(NamedTuple):
    """Of some validation samples: batches, what the model gave for them, and what is written above a picture."""

    batches: list[Batch]
    outputs: list[Any]
    caption: str = ""


class Keeper:
    """Takes samples out of a validation of ``size`` samples, evenly: they may be in the order of their classes."""

    def __init__(self, size: int) -> None:
        self.kept = Kept([], [])
        self._most = min(MOST_SAMPLES, max(1, size))
        self._stride = -(-size // self._most) if size else 1
        self._room = MOST_BYTES
        self._next = 0

    def add(self, batch: Batch, outputs: Any) -> None:
        """``outputs`` have the sample in the first dimension of each tensor."""
        size = len(next(iter(batch.values())))
        chosen = list(range(self._next, size, self._stride))
        self._next += len(chosen) * self._stride - size
        if not chosen or (self._room <= 0 and self.kept.batches):
            return
        index = torch.tensor(chosen, device=next(iter(batch.values())).device)

        def take(value: Any) -> Any:
            if not isinstance(value, Tensor) or not value.dim():
                return value
            self._room -= value.element_size() * value[:1].numel() * len(chosen)
            return value[index]

        self.kept.batches.append({name: take(value) for name, value in batch.items()})
        self.kept.outputs.append(tree_map(take, outputs))


class Pictures:
    """Draws what was kept of validations into the artifacts of the job in ``folder``: of the objective's best step, and
    of the newest, where that is another. ``note`` tells a person."""

    def __init__(self, setup: Setup, folder: Path, strategy: Strategy, note: Callable[[str], None]) -> None:
        self.wanted = isinstance(setup.task, Draws)
        self._task, self._classes = setup.task, _class_names(setup)
        self._folder = artifacts_folder(folder) / "pictures"
        self._strategy = strategy
        # A compiled model would be compiled anew for other shapes, and sharded ones are run by all workers together.
        self._alone = not (strategy.lockstep or setup.spec.train.compile)
        self._note = note
        self._waiting: dict[Kind, Kept] = {}
        self._next = time.monotonic() + FIRST_SECONDS

    def take(self, kind: Kind, kept: Kept) -> None:
        """Draw, where there was time enough since the last ones; else they wait for ``draw``."""
        self._waiting[kind] = kept
        if kind == "best":  # it is the newest too
            self._waiting.pop("last", None)
        if time.monotonic() >= self._next:
            self.draw(kind)

    def draw(self, kind: Kind, with_model: bool = True) -> None:
        """Draw what waits. With a model that has the weights that it was kept with, or without."""
        kept, begun = self._waiting.pop(kind, None), time.monotonic()
        if kept is None or not isinstance(self._task, Draws):
            return
        module = self._strategy.module
        module.eval()
        try:
            samples = Samples(
                {name: _joined([one[name] for one in kept.batches]) for name in kept.batches[0]},
                tree_map(lambda *parts: _joined(parts), kept.outputs[0], *kept.outputs[1:]),
                self._classes,
                module if self._alone and with_model else None,
            )
            with torch.no_grad():
                pictures = self._task.pictures(samples)
            for name, drawn in pictures.items():
                self._write(self._folder / kind / _file_name(name), drawn, kept.caption)
        except Exception as error:
            _log.warning("pictures failed", exc_info=True)
            self._note(f"pictures of the validation are left out: {named(error)}")
        finally:
            module.train()
        now = time.monotonic()
        self._next = now + (now - begun) / SHARE  # until what it took is that share of the time

    def _write(self, path: Path, drawn: Any, caption: str) -> None:
        if isinstance(drawn, str):
            write_atomically(path.with_name(f"{path.name}.txt"), f"{caption}\n\n{drawn}\n")
            return
        from epochal.catalog.drawing import captioned

        content = io.BytesIO()
        captioned(drawn, caption).save(content, format="png")
        write_atomically(path.with_name(f"{path.name}.png"), content.getvalue())


def _class_names(setup: Setup) -> tuple[str, ...]:
    names, count = setup.data.classes, setup.data.info.target.classes or 0
    return names if len(names) == count else tuple(map(str, range(count)))


def _file_name(name: str) -> str:
    if Path(name).name != name:
        raise ValueError(f"{name!r} is no name of a file")
    return name


def _joined(parts: Any) -> Any:
    """Of several batches; what is no tensor of samples is the first one's."""
    first = parts[0]
    return torch.cat(list(parts)).cpu() if isinstance(first, Tensor) and first.dim() else first
