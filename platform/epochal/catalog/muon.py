"""Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) for matrices, and AdamW for the rest."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import nn, optim
from torch.optim import Optimizer

from epochal.catalog.entry import Group


class MuonWithAdamW(Optimizer):
    """Two of torch's optimizers as one. They share its groups and its state: to schedules and checkpoints it is one."""

    def __init__(
        self,
        groups: Sequence[Group],
        lr: float,
        spared: Collection[str],
        muon: dict[str, Any],
        adamw: dict[str, Any],
    ) -> None:
        """Each group has ``names``. ``spared`` are those of matrices that AdamW trains; ``muon`` and ``adamw`` are the
        settings of each."""
        super().__init__([part for group in groups for part in _parts(group, spared)], {"lr": lr})
        self._makers = {"muon": (optim.Muon, muon), "adamw": (optim.AdamW, adamw)}
        self._join()

    def _join(self) -> None:
        self._members: list[Optimizer] = []
        for kind, (make, settings) in self._makers.items():
            if own := [group for group in self.param_groups if group["by"] == kind]:
                member = make(own, **settings)  # which completes the groups in place
                member.state = self.state
                self._members.append(member)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for member in self._members:
            member.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._join()


def _parts(group: Group, spared: Collection[str]) -> list[Group]:
    parts: dict[str, list[nn.Parameter]] = {"muon": [], "adamw": []}
    for name, one in zip(group["names"], group["params"], strict=True):
        parts["muon" if one.dim() == 2 and name not in spared else "adamw"].append(one)
    settings = {key: value for key, value in group.items() if key != "names"}
    return [{**settings, "params": params, "by": kind} for kind, params in parts.items() if params]
