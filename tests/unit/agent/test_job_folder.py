from __future__ import annotations

from pathlib import Path

import pytest

from epochal.agent.in_process import LedgerSource
from epochal.agent.job_folder import payload_spec
from epochal.errors import NotFoundError
from epochal.settings import Home


def test_weights_to_start_from_may_be_gone_once_there_is_a_checkpoint(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.root.mkdir()
    spec = {"train": {"init_from": "given.safetensors"}}
    with LedgerSource.open(home.ledger_url) as ledger:
        job = ledger.submit(spec, name="gone", origin={"folder": str(tmp_path)})
        with pytest.raises(NotFoundError, match=r"given\.safetensors"):
            payload_spec(ledger, home, job)
        saved = home.job(job.id) / "checkpoints" / "step-00000005"
        saved.mkdir(parents=True)
        (saved / "manifest.json").touch()
        assert payload_spec(ledger, home, job) == spec
        (tmp_path / "given.safetensors").touch()
        assert payload_spec(ledger, home, job)["train"]["init_from"] == str(tmp_path / "given.safetensors")
