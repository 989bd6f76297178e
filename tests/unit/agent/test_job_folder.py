from __future__ import annotations

from pathlib import Path

import pytest

from epochal.agent.in_process import LedgerSource
from epochal.agent.job_folder import payload_spec, weights_named
from epochal.errors import NotFoundError
from epochal.ledger.values import Job
from epochal.names import checked_name
from epochal.settings import Home


class Remote(LedgerSource):
    """Refuses names as a server's client does."""

    def job(self, ref: str) -> Job:
        return super().job(checked_name("job", ref))


@pytest.mark.parametrize("source", [LedgerSource, Remote])
def test_weights_to_start_from_may_be_gone_once_there_is_a_checkpoint(
    tmp_path: Path, source: type[LedgerSource]
) -> None:
    home = Home(tmp_path / "home")
    home.root.mkdir()
    spec = {"train": {"init_from": "given.safetensors"}}
    with source.open(home.ledger_url) as ledger:
        job = ledger.submit(spec, name="gone", origin={"folder": str(tmp_path)})
        with pytest.raises(NotFoundError, match=r"given\.safetensors"):
            payload_spec(ledger, home, job)
        saved = home.job(job.id) / "checkpoints" / "step-00000005"
        saved.mkdir(parents=True)
        (saved / "manifest.json").touch()
        assert payload_spec(ledger, home, job) == spec
        (tmp_path / "given.safetensors").touch()
        assert payload_spec(ledger, home, job)["train"]["init_from"] == str(tmp_path / "given.safetensors")


def test_what_no_file_can_be_called_is_not_found(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.root.mkdir()
    with Remote.open(home.ledger_url) as ledger:
        for named in ("x" * 300, "models/none.safetensors", "with\0nul"):
            with pytest.raises(NotFoundError, match="no job, checkpoint or file of weights"):
                weights_named(named, tmp_path, ledger.job, home)
