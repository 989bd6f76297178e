"""L-BFGS (Liu and Nocedal 1989, https://doi.org/10.1007/BF01589116) whose state can be written to a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, optim

from epochal.catalog.entry import Group


class Lbfgs(optim.LBFGS):
    """torch's, which keeps lists and Python's numbers; this one keeps tensors of fixed shapes, and each step begins
    from those, so that one after a resume is the same. ``step`` without a closure only makes room for them."""

    def __init__(
        self,
        groups: Sequence[Group],
        lr: float = 1.0,
        history_size: int = 10,
        line_search_fn: str | None = "strong_wolfe",
        **settings: Any,
    ) -> None:
        super().__init__(groups, lr=lr, history_size=history_size, line_search_fn=line_search_fn, **settings)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        first = self._params[0]
        kept = self.state.get(first) or self._room()
        self.state[first] = kept
        if closure is None:
            return None
        self.state[first] = opened = _opened(kept)
        try:
            return super().step(closure)  # type: ignore[no-untyped-call]
        finally:
            _close(kept, opened)
            self.state[first] = kept

    def _room(self) -> dict[str, Tensor]:
        size, history = self._numel(), self.param_groups[0]["history_size"]  # type: ignore[no-untyped-call]
        zeros = self._params[0].new_zeros
        return {
            "numbers": zeros(5),
            "direction": zeros(size),
            "gradient": zeros(size),
            "changes": zeros(history, size),
            "steps": zeros(history, size),
            "curvatures": zeros(history),
        }


def _opened(kept: dict[str, Tensor]) -> dict[str, Any]:
    """torch's state, of what is kept."""
    iterations, evaluations, length, rate, _ = kept["numbers"].tolist()
    if not iterations:
        return {"n_iter": 0, "func_evals": int(evaluations)}
    count = int(length)
    return {
        "n_iter": int(iterations),
        "func_evals": int(evaluations),
        "d": kept["direction"],
        "t": rate,
        "old_dirs": list(kept["changes"][:count]),
        "old_stps": list(kept["steps"][:count]),
        "ro": list(kept["curvatures"][:count]),
        "H_diag": kept["numbers"][4].clone(),
        "prev_flat_grad": kept["gradient"],
        "prev_loss": 0.0,  # set before it is read
    }


@torch.no_grad()
def _close(kept: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Keep what torch's state has become."""
    if "d" not in state:
        kept["numbers"][1] = state["func_evals"]
        return
    count = len(state["ro"])
    numbers = (state["n_iter"], state["func_evals"], count, state["t"], state["H_diag"])
    kept["numbers"].copy_(torch.tensor([float(number) for number in numbers]))
    kept["direction"].copy_(state["d"])
    kept["gradient"].copy_(state["prev_flat_grad"])
    for name, own in (("changes", "old_dirs"), ("steps", "old_stps"), ("curvatures", "ro")):
        if count:
            kept[name][:count] = torch.stack(state[own])  # by way of new memory: rows move up when one is dropped
