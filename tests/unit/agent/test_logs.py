"""Logs are shipped whole, whatever is away and whoever starts again."""

from __future__ import annotations

from pathlib import Path

import pytest

from epochal.agent.logs import LogShipper, attempt_logs, unshipped
from epochal.engine import relay
from epochal.engine.log_tail import read_from
from epochal.engine.relay import LogFile
from epochal.errors import AuthError, StaleLeaseError, UnreachableError
from epochal.ledger.ledger import Ledger
from epochal.ledger.values import Lease


class Shelf:
    """Keeps logs as a server does: by offset, what it has already is left out, a gap is not taken."""

    def __init__(self) -> None:
        self.logs: dict[int, bytes] = {}
        self.away = self.lose = self.refuses = self.wants_a_token = False

    def append_log(self, lease: Lease, rank: int, offset: int, data: bytes) -> int:
        if self.away:
            raise UnreachableError("away")
        if self.wants_a_token:
            raise AuthError("this token is not known, was revoked or has expired")
        if self.refuses:
            raise StaleLeaseError(lease.job_id, lease.epoch, lease.epoch + 1, "RUNNING")
        have = self.logs.get(rank, b"")
        if offset > len(have):
            return len(have)
        self.logs[rank] = have + data[len(have) - offset :]
        if self.lose:
            raise UnreachableError("the answer was lost")
        return len(self.logs[rank])


@pytest.fixture
def lease() -> Lease:
    with Ledger.open("sqlite://") as ledger:
        job = ledger.submit({"version": 1}, name="printing")
        lease = ledger.lease("agent/1", 30, job.id)
    assert lease is not None
    return lease


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    attempt_logs(tmp_path, 1).mkdir(parents=True)
    return tmp_path


def prints(folder: Path, rank: int, data: bytes) -> Path:
    path = attempt_logs(folder, 1) / f"rank-{rank}.log"
    with path.open("ab") as file:
        file.write(data)
    return path


def test_every_rank_is_shipped_in_chunks(folder: Path, lease: Lease, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_from, "__defaults__", (7,))
    shelf, text = Shelf(), "größer als ein Stück\n".encode() * 10
    prints(folder, 0, text)
    prints(folder, 11, b"x\n")
    LogShipper(shelf, lease, folder).finish()  # type: ignore[arg-type]
    assert shelf.logs == {0: text, 11: b"x\n"}
    assert list(unshipped(folder)) == []


def test_a_log_that_is_a_link_is_not_read(
    folder: Path, lease: Lease, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Code of the job could have made it one, to what the agent alone may read."""
    secret = tmp_path / "token"
    secret.write_text("secret")
    shelf, log = Shelf(), prints(folder, 1, b"")
    log.unlink()
    log.symlink_to(secret)
    prints(folder, 0, b"x\n")
    shipper = LogShipper(shelf, lease, folder)  # type: ignore[arg-type]
    shipper.ship()
    shipper.finish()
    assert shelf.logs == {0: b"x\n"}
    assert read_from(log, 0) == b"", "also where it was made one just now"
    assert caplog.text.count("it is a link") == 1


def test_nothing_is_lost_or_doubled_by_outages(folder: Path, lease: Lease) -> None:
    shelf = Shelf()
    shipper = LogShipper(shelf, lease, folder)  # type: ignore[arg-type]
    for away, lose in ((False, False), (True, False), (False, True), (False, True), (False, False)):
        prints(folder, 0, b"one more line\n")
        shelf.away, shelf.lose = away, lose
        if away or lose:
            with pytest.raises(UnreachableError):
                shipper.ship()
        else:
            shipper.ship()
    assert shelf.logs == {0: b"one more line\n" * 5}


def test_an_agent_that_starts_again_goes_on_where_the_other_side_is(folder: Path, lease: Lease) -> None:
    shelf = Shelf()
    prints(folder, 0, b"before ")
    LogShipper(shelf, lease, folder).ship()  # type: ignore[arg-type]
    prints(folder, 0, b"after")
    assert list(unshipped(folder)) == [1]
    LogShipper(shelf, lease, folder).finish()  # type: ignore[arg-type]
    assert shelf.logs == {0: b"before after"}


def test_a_log_that_was_set_aside_is_shipped_to_its_end(
    folder: Path, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "FILE_BYTES", 50)
    shelf, whole = Shelf(), b""
    shipper = LogShipper(shelf, lease, folder)  # type: ignore[arg-type]
    path = prints(folder, 0, b"")
    log = LogFile(path)
    for index in range(30):
        line = f"line {index} of a long log\n".encode()
        whole += line
        log.write(line)
        if index % 2:
            shipper.ship()
    shipper.ship()
    assert len(path.read_bytes()) < 100
    assert shelf.logs == {0: whole}


def test_what_is_kept_nowhere_any_more_is_given_up(folder: Path, lease: Lease, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "FILE_BYTES", 10)
    shelf = Shelf()
    path = prints(folder, 0, b"")
    log = LogFile(path)
    for index in range(5):
        log.write(f"line number {index}\n".encode())
    assert read_from(path, 0) == b""
    LogShipper(shelf, lease, folder).finish()  # type: ignore[arg-type]
    assert shelf.logs == {}


def test_it_tells_whether_there_was_anything_to_ship(folder: Path, lease: Lease) -> None:
    shipper = LogShipper(Shelf(), lease, folder)  # type: ignore[arg-type]
    assert not shipper.ship()
    prints(folder, 0, b"a line that has no end yet")
    assert shipper.ship()
    assert not shipper.ship()


def test_a_log_that_is_refused_does_not_stop_the_attempt(folder: Path, lease: Lease) -> None:
    shelf = Shelf()
    shelf.refuses = True
    prints(folder, 0, b"x")
    LogShipper(shelf, lease, folder).finish()  # type: ignore[arg-type]
    assert shelf.logs == {}


def test_a_log_goes_on_once_the_token_is_taken_again(folder: Path, lease: Lease) -> None:
    shelf = Shelf()
    shipper = LogShipper(shelf, lease, folder)  # type: ignore[arg-type]
    prints(folder, 0, b"before, ")
    shelf.wants_a_token = True
    with pytest.raises(AuthError):
        shipper.finish()
    assert list(unshipped(folder)) == [1]
    shelf.wants_a_token = False
    prints(folder, 0, b"and after")
    shipper.finish()
    assert shelf.logs == {0: b"before, and after"}
