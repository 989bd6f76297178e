"""Whether models can train as one, found out on their first batch: no model is changed by that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from epochal.catalog.task import TakesStock
from epochal.errors import some
from epochal.redaction import named
from epochal.training import seeding
from epochal.training.ensemble import Ensemble
from epochal.training.loader import Loaded
from epochal.training.step import Stepper

_CLOSE = {"fp32": 1e-4, "bf16": 5e-2}
"""How far a member's loss may be from the one that it has alone; its gradient ten times as far."""


def ensemble_of(steppers: Sequence[Stepper], loaded: Loaded, shared: bool) -> Ensemble | str:
    """The members as one, or why each has to train by itself.

    ``loaded`` is their next batch: the same for all where it is ``shared``, else with a dimension of members in front.
    """
    first = steppers[0]
    own = loaded if shared else loaded._replace(batch={name: tensor[0] for name, tensor in loaded.batch.items()})
    try:
        if why := _unlike(steppers):
            return why
        loss, why = _alone(first, own)
        named_parameters = first.strategy.module.named_parameters()
        alone = {name: one.grad for name, one in named_parameters if one.grad is not None}
        if why := why or _unfit(steppers, alone):
            return why
        with _no_loops(), Ensemble.kernels():
            ensemble = Ensemble(steppers, list(alone))
            losses = ensemble.gradients(loaded.batch, loaded.size, shared).loss
    except Exception as error:
        return f"its model or its task cannot be computed for several trials at once: {named(error)}"
    finally:
        first.optimizer.zero_grad(set_to_none=True)
    gradient = torch.cat([one.flatten() for one in alone.values()])
    close = _CLOSE[first.precision.name]
    if _far(losses[0], loss, close) or _far(ensemble.row_of_gradients(0), gradient, 10 * close):
        return "its model, or its task, computes something else for several trials at once"
    return ensemble


def _alone(stepper: Stepper, loaded: Loaded) -> tuple[Tensor, str]:
    """The loss of a member that computes by itself, and what it does beside that. Its gradients are left in it."""
    module, device = stepper.strategy.module, stepper.strategy.worker.device
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    generators = seeding.capture(device)
    try:
        loss, _, logs = stepper.gradients(loaded)
        if logs:
            return loss, f"its task logs {some(list(logs))}"
        written = [name for name, now in module.named_buffers() if not torch.equal(now, buffers[name])]
        if written:
            return loss, f"a forward pass of its model writes {some(written)}"
        if seeding.capture(device) != generators:
            return loss, "a forward pass of its model draws random numbers, as dropout does"
        return loss, ""
    finally:
        with torch.no_grad():
            for name, buffer in module.named_buffers():
                buffer.copy_(buffers[name])
        seeding.restore(generators, device)


def _unlike(steppers: Sequence[Stepper]) -> str:
    shapes = [_shapes(stepper.strategy.module) for stepper in steppers]
    if any(type(stepper) is not Stepper for stepper in steppers):
        return "its step is several passes, each with an update of its own"
    if any(isinstance(stepper.task, TakesStock) for stepper in steppers):
        return "its task looks at the model between two steps"
    if any(one != shapes[0] for one in shapes):
        return "the trials' models differ in their parameters or buffers"
    if len({type(stepper.optimizer) for stepper in steppers}) > 1:
        return "the trials' optimizers differ"
    if any(len(stepper.optimizer.param_groups) > 1 for stepper in steppers):
        return "its optimizer treats some parameters otherwise than the rest"
    return ""


def _shapes(module: nn.Module) -> dict[str, tuple[torch.Size, torch.dtype, bool]]:
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {name: (one.shape, one.dtype, one.requires_grad) for name, one in tensors.items()}


def _unfit(steppers: Sequence[Stepper], gradients: dict[str, Tensor]) -> str:
    """Why the parameters that get a gradient cannot be one row each, with one state of the optimizer."""
    if sparse := [name for name, one in gradients.items() if one.is_sparse]:
        return f"the gradients of {some(sparse)} are sparse"
    if len({one.dtype for one in gradients.values()}) > 1 or not any(one.dim() for one in gradients.values()):
        return "its parameters are of several types, or single numbers"
    for stepper in steppers:
        parameters = dict(stepper.strategy.module.named_parameters())
        states = [stepper.optimizer.state.get(parameters[name], {}) for name in gradients]
        counts = [{key: value for key, value in state.items() if _is_scalar(value)} for state in states]
        if any(state.keys() != states[0].keys() for state in states) or any(one != counts[0] for one in counts):
            return "its optimizer has done more steps for some parameters than for others"
    return ""


def _is_scalar(value: object) -> bool:
    return not isinstance(value, Tensor) or not value.dim()


def _far(one: Tensor, other: Tensor, share: float) -> bool:
    """Whether two tensors differ by more than a ``share``; not so where one is not finite, which others will tell."""
    difference, size = (one - other).norm(), other.norm()
    return bool(difference > share * size + 1e-7)


@contextmanager
def _no_loops() -> Iterator[None]:
    """Refuse operations that ``vmap`` has no kernel for: it would compute one member after another."""
    switch = torch._C._functorch._set_vmap_fallback_enabled  # type: ignore[attr-defined]
    switch(False)
    try:
        yield
    finally:
        switch(True)
