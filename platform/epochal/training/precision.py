"""Number formats: what runs in 16 bits, and how gradients survive it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from epochal.catalog.optimizers import is_sharded

Name = Literal["fp32", "bf16", "fp16"]
Clip = Callable[[], Tensor | None]
"""Scale the gradients down to the greatest norm allowed; their norm before that, or None where none is set."""

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """Weights stay in fp32; bf16 and fp16 run the forward pass under autocast; fp16 scales the loss as well.

    ``gradient_scale`` is the strategy's: what gradients have to be multiplied with because workers average them. In
    fp16 that is done afterwards, so that the range of the scaled gradients does not depend on the number of workers.

    Micikevicius et al., Mixed Precision Training, 2018.
    """

    def __init__(self, name: Name, device: torch.device, gradient_scale: float) -> None:
        self.name = name
        self._gradient_scale = gradient_scale
        self._dtype = DTYPES.get(name)
        self._device = device.type
        self._scaler = GradScaler(self._device, enabled=name == "fp16")

    def forward(self) -> AbstractContextManager[object]:
        """The context of a forward pass."""
        if self._dtype is None:
            return nullcontext()
        return torch.autocast(self._device, dtype=self._dtype)

    def backward(self, loss: Tensor, weight: float) -> None:
        """Add the gradient of ``loss / weight``; the workers' sum of it is complete after ``update``."""
        if self._scaler.is_enabled():
            self._scaler.scale(loss / weight).backward()  # type: ignore[no-untyped-call]
        else:
            # Filled on the device: a copy to it would wait for what it is doing.
            loss.backward(torch.full_like(loss, self._gradient_scale / weight))  # type: ignore[no-untyped-call]

    def update(self, optimizer: Optimizer, clip: Clip) -> Tensor | None:
        """One optimizer step, left out where a scaled gradient overflowed; the gradients' norm where it is clipped."""
        if not self._scaler.is_enabled():
            norm = clip()
            optimizer.step()
            return norm
        self._scaler.unscale_(optimizer)
        if self._gradient_scale != 1:
            scale_gradients(optimizer, self._gradient_scale)
        norm = clip()
        self._scaler.step(optimizer)
        self._scaler.update()
        return norm

    def state(self) -> dict[str, float]:
        """What a checkpoint keeps; empty unless the loss is scaled."""
        return self._scaler.state_dict()

    def load(self, state: dict[str, float]) -> None:
        if state and self._scaler.is_enabled():
            self._scaler.load_state_dict(state)


@torch.no_grad()
def scale_gradients(optimizer: Optimizer, factor: float | Tensor) -> None:
    """Multiply every gradient with ``factor``, in place."""
    parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    # Shards are multiplied as plain tensors: torch refuses a DTensor beside a factor that is none.
    torch._foreach_mul_([grad.to_local() if is_sharded(grad) else grad for grad in gradients], factor)
