"""What a packaging that failed leaves behind."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from epochal.catalog.data import DataInfo, Field
from epochal.engine import packaging
from epochal.training import example, weights
from epochal.training.control import NullControl

SPEC = {"version": 1, "name": "t", "model": {"name": "mlp"}, "data": {"name": "digits"}, "train": {"epochs": 1}}


class Added(nn.Module):
    def forward(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return one + other


def test_no_traced_program_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is as large as the model."""
    fields = {"input": torch.zeros(2, 3), "more": torch.zeros(2, 3)}
    info = DataInfo(Field((3,)), Field(()), {"more": Field((3,))}, ("input", "more"))
    (tmp_path / "model").mkdir()

    def full(program: Path, *_: Any) -> Any:
        assert program.exists()
        raise OSError("No space left on device")

    monkeypatch.setattr(example, "read", lambda folder: (fields, info))
    monkeypatch.setattr(packaging, "build_model", lambda model, info: Added())
    monkeypatch.setattr(packaging, "export_program", lambda model, samples, file: file.write_bytes(b"traced"))
    monkeypatch.setattr(packaging, "save_program", full)
    monkeypatch.setattr(weights, "start_from", lambda model, path: None)
    context: Any = SimpleNamespace(folder=tmp_path, control=NullControl())
    with pytest.raises(OSError, match="No space left"):
        packaging.package(SPEC, context)
    assert list((tmp_path / "model").iterdir()) == []
