"""Files of ours, and a spec: whatever is in them, they are read, or refused by name. No traceback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import save

from damaged import damaged_bytes
from epochal.catalog.index import check
from epochal.client.address import read_token
from epochal.client.contexts import Config
from epochal.errors import EpochalError
from epochal.local.service_state import read_services
from epochal.spec import load_spec
from epochal.tracking.sync_state import SyncState, can_be_sent
from epochal.training import checkpoint, example, weights

TOKEN = b"ep_0123456789abcdefghijklmnopqrstuvwxyz\n"
CONFIG = b"""current: team
contexts:
  team: {server: "https://epochal.example.org", token: ep_0123456789abcdefghijklmnopqrstuvwxyz}
  here: {server: "http://127.0.0.1:8700"}
"""
SPEC = b"""version: 1
name: digits
model: {name: cnn, params: {channels: [8, 16]}}
data: {name: digits, params: {validation: 0.2}}
train:
  epochs: 2
  optimizer: {name: adamw, lr: 0.001}
resources: {workers: 2}
tags: {team: vision, date: "2024-01-01"}
"""
INFO = {"info": '{"input": [[4], "torch.float32", null], "target": [[], "torch.int64", 3]}'}
MANIFEST = checkpoint.Manifest(4, 1, 2, "ddp", {"train/loss": 0.5}).text().encode()
TENSORS = {"input": torch.arange(8.0).reshape(2, 4)}

READERS: dict[str, tuple[bytes, Callable[[Path], object]]] = {
    "config.yaml": (CONFIG, Config.load),
    "token": (TOKEN, read_token),
    "job.yaml": (SPEC, lambda path: load_spec(str(path), (), (check,))),
    "weights.safetensors": (save(TENSORS), weights.read),
    str(example.FILE): (save(TENSORS, INFO), lambda path: example.read(path.parents[1])),
    checkpoint.MANIFEST: (MANIFEST, lambda path: checkpoint.read(path.parent)),
    "state.json": (b'{"running": true, "supervisor": 7, "services": []}', lambda path: read_services(path.parent)),
    "sync_state.json": (b'{"uri": "http://127.0.0.1", "offsets": {"a": 3}, "artifacts": {"b": [1, 2]}}',
                        lambda path: (SyncState.load(path.parent), can_be_sent(path.parent))),
}  # fmt: skip


def examined(folder: Path, name: str, content: bytes) -> EpochalError | None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o600)
    refused: EpochalError | None = None
    try:
        READERS[name][1](path)
    except EpochalError as error:
        refused = error
    if refused is not None:
        assert str(path.parent) in str(refused)
        assert path.name in str(refused)
        assert "Traceback" not in str(refused)
    return refused


@pytest.mark.parametrize("name", READERS)
def test_the_good_file_is_read(tmp_path: Path, name: str) -> None:
    assert examined(tmp_path, name, READERS[name][0]) is None


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_copy_is_read_or_refused_by_name(tmp_path: Path, name: str) -> None:
    for seed in range(25):
        examined(tmp_path, name, damaged_bytes(Random(f"{name} {seed}"), READERS[name][0]))


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_thousands_of_damaged_copies(tmp_path: Path, name: str) -> None:
    for seed in range(2000):
        examined(tmp_path, name, damaged_bytes(Random(f"{name} {seed}"), READERS[name][0]))
