from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import training_pieces as pieces
from epochal.errors import CheckpointError, TrainingError
from epochal.tracking.recorder import MemoryRecorder
from epochal.training import weights
from epochal.training.control import NullControl
from epochal.training.fit import fit
from epochal.training.worker import Worker


def model(classes: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, classes))


def test_exported_weights_are_started_from(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    trained, fresh = model(), model()
    file = weights.export(trained, tmp_path / weights.FILE, first=True)
    assert file == tmp_path / "model" / "weights.safetensors"
    matched = weights.start_from(fresh, file)
    assert set(matched.loaded) == set(trained.state_dict())
    torch.testing.assert_close(fresh.state_dict(), trained.state_dict())
    assert [record.levelname for record in caplog.records] == ["INFO"]


def test_what_an_attempt_left_that_died_in_its_export_is_removed_by_the_next(tmp_path: Path) -> None:
    left = tmp_path / "model" / "weights.safetensors.tmp-4711"
    left.parent.mkdir()
    left.write_bytes(b"half of the weights")
    job = pieces.spec(epochs=1)
    fit(pieces.setup(job), Worker(), tmp_path, MemoryRecorder(), NullControl())
    assert not left.exists()
    assert (tmp_path / weights.FILE).exists()


def test_only_the_first_worker_writes(tmp_path: Path) -> None:
    weights.export(model(), tmp_path / weights.FILE, first=False)
    assert not (tmp_path / "model").exists()


def test_tied_weights_are_exported(tmp_path: Path) -> None:
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    read = load_file(weights.export(tied, tmp_path / weights.FILE, first=True))
    torch.testing.assert_close(read["1.weight"], read["0.weight"])


def test_what_is_not_to_be_taken_stays_as_it_is(tmp_path: Path) -> None:
    file = weights.export(model(), tmp_path / weights.FILE, first=True)
    fresh = model()
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    matched = weights.start_from(fresh, file, ["2.*"])
    assert matched.excepted == ("2.weight", "2.bias")
    assert str(matched).endswith("2 left as drawn by train.init_except: 2.weight, 2.bias")
    after, given = fresh.state_dict(), load_file(file)
    for name, value in after.items():
        assert torch.equal(value, before[name] if name.startswith("2.") else given[name])
    with pytest.raises(TrainingError, match=r"init_except: no weight matches 'head.\*'"):
        weights.start_from(fresh, file, ["head.*"])


def test_what_does_not_match_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    given = model(classes=5).state_dict()
    given["head.weight"] = torch.zeros(2)
    del given["1.bias"]
    save_file(given, tmp_path / "given.safetensors")
    fresh = model()
    before = fresh.state_dict()["2.weight"].clone()
    matched = weights.start_from(fresh, tmp_path / "given.safetensors")
    assert matched.reshaped == ("2.weight", "2.bias")
    assert matched.missing == ("1.bias",)
    assert matched.unexpected == ("head.weight",)
    torch.testing.assert_close(fresh.state_dict()["2.weight"], before)
    torch.testing.assert_close(fresh.state_dict()["0.weight"], given["0.weight"])
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    told = (
        "2 of another shape: 2.weight (5 x 8 in the file, 3 x 8 in the model), 2.bias (5 in the file, 3 in the model)"
    )
    assert told in record.getMessage()
    assert not matched.complete


@pytest.mark.parametrize("content", [None, b"nonsense"])
def test_unreadable_weights(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "given.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"given\.safetensors"):
        weights.start_from(model(), file)


def test_weights_of_another_model(tmp_path: Path) -> None:
    save_file({"encoder": torch.zeros(2)}, tmp_path / "given.safetensors")
    with pytest.raises(CheckpointError, match="no weight"):
        weights.start_from(model(), tmp_path / "given.safetensors")


def test_a_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="neither"):
        weights.read(tmp_path)


def test_freeze_by_pattern() -> None:
    net = model()
    assert weights.freeze(net, ["0.*", "1.bias"]) == ("0.weight", "0.bias", "1.bias")
    trained = [name for name, parameter in net.named_parameters() if parameter.requires_grad]
    assert trained == ["1.weight", "2.weight", "2.bias"]


def test_a_pattern_that_matches_nothing() -> None:
    with pytest.raises(TrainingError, match=r"'features\.\*'"):
        weights.freeze(model(), ["0.*", "features.*"])


def test_something_has_to_be_trained() -> None:
    with pytest.raises(TrainingError, match="no parameter to train"):
        weights.freeze(model(), ["*"])
