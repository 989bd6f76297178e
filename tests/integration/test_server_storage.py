"""Files of the server, in a folder and behind fsspec: one behaviour."""

from __future__ import annotations

import errno
import io
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import local_s3
from epochal.errors import UnreachableError, UsageError
from epochal.server import log_store
from epochal.server.log_store import LogStore, Stream
from epochal.server.storage import Storage

STREAM = Stream(1, 0)


def printed(store: LogStore) -> bytes:
    log = store.logs("job")[STREAM]
    return store.read("job", STREAM, log, 0, log.end)


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with local_s3.bucket() as address:
        yield address


@pytest.fixture(params=["folder", "memory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "kept")
    return f"memory://{tmp_path}" if request.param == "memory" else f"{request.getfixturevalue('bucket')}{tmp_path}"


@pytest.fixture
def storage(url: str) -> Storage:
    return Storage(url)


def test_what_was_put_is_read(storage: Storage) -> None:
    storage.put(io.BytesIO(b"one two"), "code", "a.zip")
    assert storage.size("code", "a.zip") == 7
    assert storage.read(("code", "a.zip"), 4, 7) == b"two"
    assert b"".join(storage.blocks("code", "a.zip")) == b"one two"


class Torn(io.BytesIO):
    """A file whose disk fails after the first block."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() or size is None or size < 0:
            raise OSError(errno.EIO, "Input/output error")
        return super().read(size)


def test_half_of_what_was_to_be_put_is_never_there(storage: Storage) -> None:
    torn = bytes(3 * 2**20)
    with pytest.raises(UnreachableError, match="Input/output error"):
        storage.put(Torn(torn), "code", "a.zip")
    assert storage.size("code", "a.zip") is None
    storage.put(io.BytesIO(b"whole"), "code", "a.zip")
    with pytest.raises(UnreachableError):
        storage.put(Torn(torn), "code", "a.zip")
    assert storage.read(("code", "a.zip"), 0, 100) == b"whole"


def test_what_is_not_there_has_no_size(storage: Storage) -> None:
    assert storage.size("code", "none.zip") is None
    assert storage.sizes("logs", "none") == {}


def test_what_is_written_again_replaces_what_was_there(storage: Storage) -> None:
    name = ("logs", "a", "0")
    storage.write(name, b"one torn")
    storage.write(name, b"one two")
    assert storage.read(name, 0, 100) == b"one two"
    for _ in range(2):
        storage.delete_file(*name)
        assert storage.read(name, 0, 100) is None


def test_sizes_are_of_everything_below(storage: Storage) -> None:
    storage.write(("logs", "a", "1", "0"), b"x")
    storage.write(("logs", "a", "2", "0"), b"xyz")
    storage.write(("logs", "ab", "1", "0"), b"other")
    assert storage.sizes("logs", "a") == {("1", "0"): 1, ("2", "0"): 3}


@pytest.mark.parametrize("part", ["..", ".", "", "a/b", "/etc", "a\\b", "\x00", ".hidden", "a\n", "x" * 300])
def test_no_name_leads_out_of_the_folder(storage: Storage, part: str) -> None:
    with pytest.raises(UsageError):
        storage.size("code", part)
    with pytest.raises(UsageError):
        storage.write(("logs", part), b"x")


def test_others_cannot_read_the_folder(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "kept"))
    storage.write(("logs", "a"), b"x")
    storage.put(io.BytesIO(b"x"), "code", "b")
    written = [tmp_path / "kept", *(tmp_path / "kept").rglob("*")]
    assert not [path for path in written if stat.S_IMODE(path.stat().st_mode) & 0o077]


def test_storage_that_is_gone_is_told(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "kept"))
    storage.check()
    (tmp_path / "kept").rmdir()
    with pytest.raises(UnreachableError, match="missing"):
        storage.check()


def test_a_folder_that_cannot_be_listed_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log would begin anew where its pieces are there all the same."""
    store = LogStore(Storage(str(tmp_path)))
    assert store.append("job", STREAM, 0, b"one ") == 4

    def fails(path: str) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "scandir", fails)
    with pytest.raises(UnreachableError, match="Input/output error"):
        store.append("job", STREAM, 4, b"two")
    monkeypatch.undo()
    assert store.append("job", STREAM, 4, b"two") == 7
    assert printed(store) == b"one two"


def test_an_unknown_kind_of_url_is_refused() -> None:
    with pytest.raises(UsageError, match="nonsense"):
        Storage("nonsense://x")


def test_two_servers_on_one_storage_go_on_with_a_log_in_turns(url: str) -> None:
    one, other, stream = LogStore(Storage(url)), LogStore(Storage(url)), STREAM
    assert one.append("job", stream, 0, b"first\n") == 6
    assert other.append("job", stream, 3, b"st\nsecond\n") == 13
    assert one.append("job", stream, 13, b"third\n") == 19
    assert one.append("job", stream, 100, b"after a gap\n") == 19
    assert one.append("job", stream, 6, b"second\n") == 19, "what was sent before"
    assert printed(other) == b"first\nsecond\nthird\n"


class InTurn(Storage):
    """Between its listing and its writing, others have their turn."""

    def __init__(self, url: str, meanwhile: Callable[[], object]) -> None:
        super().__init__(url)
        self._meanwhile = meanwhile

    def sizes(self, *folder: str) -> dict[tuple[str, ...], int]:
        found = super().sizes(*folder)
        self._meanwhile()
        return found


def test_an_append_that_comes_late_takes_nothing_from_the_other_servers(url: str) -> None:
    other = LogStore(Storage(url))
    other.append("job", STREAM, 0, b"first\n")
    late = LogStore(InTurn(url, lambda: other.append("job", STREAM, 6, b"second\nthird\n")))
    late.append("job", STREAM, 6, b"second\n")
    assert printed(other) == b"first\nsecond\nthird\n"


def test_servers_that_append_and_merge_at_once_lose_and_double_nothing(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_store, "SMALL_PIECES", 5)
    content = "".join(f"line {number}\n" for number in range(16)).encode()

    def sends(step: int) -> None:
        store, sent = LogStore(Storage(url)), 0
        while sent < len(content):
            sent = store.append("job", STREAM, sent, content[sent : sent + step])

    threads = [threading.Thread(target=sends, args=(step,)) for step in (17, 23)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store = LogStore(Storage(url))
    assert printed(store) == content
    for _ in range(2):
        store.compact("job", 1)
        assert printed(store) == content
    assert set(Storage(url).sizes("logs", "job", "1", "0")) == {(f"{0:020}-{len(content)}",)}


def test_a_merge_that_ends_before_it_deletes_loses_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store, reader = LogStore(Storage(url)), LogStore(Storage(url))
    for number in range(6):
        store.append("job", STREAM, number, b"abcdef"[number : number + 1])
    listed = reader.logs("job")[STREAM]
    store.compact("job", 1)
    assert len(Storage(url).sizes("logs", "job")) == 7
    assert printed(store) == b"abcdef"
    deleted: list[tuple[str, ...]] = []

    def dies(storage: Storage, *name: str) -> None:
        if len(deleted) == 3:
            raise UnreachableError("it died", "")
        deleted.append(name)
        storage.delete(*name)

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "delete_file", dies)
        with pytest.raises(UnreachableError):
            store.compact("job", 1)
    assert len(Storage(url).sizes("logs", "job")) == 4
    assert printed(store) == b"abcdef"
    assert store.append("job", STREAM, 4, b"efgh") == 8
    store.compact("job", 1)
    assert printed(store) == b"abcdefgh"
    assert reader.read("job", STREAM, listed, 1, 4) == b"bcde", "what it listed is there no more"


def test_a_piece_that_was_not_written_to_its_end_is_sent_again(tmp_path: Path) -> None:
    """A file may be shorter than it was, where not every write is atomic. What follows it waits for it."""
    store = LogStore(Storage(str(tmp_path)))
    for offset, line in ((0, b"first\n"), (6, b"second\n"), (13, b"third\n")):
        store.append("job", STREAM, offset, line)
    (tmp_path / "logs/job/1/0" / f"{6:020}-7").write_bytes(b"sec")
    for _ in range(2):
        store.compact("job", 1)
    assert printed(store) == b"first\n"
    assert store.append("job", STREAM, 19, b"fourth\n") == 6
    assert store.append("job", STREAM, 6, b"second\n") == 13
    assert printed(store) == b"first\nsecond\nthird\n"


def test_what_older_versions_stored_is_read_and_goes_on(url: str) -> None:
    storage = Storage(url)
    storage.write(("logs", "job", "1", "0", f"{0:020}"), b"old ")
    storage.write(("logs", "job", "1", "0", f"{4:020}"), b"logs ")
    store = LogStore(storage)
    assert store.append("job", STREAM, 9, b"go on") == 14
    assert printed(store) == b"old logs go on"
    for _ in range(2):
        store.compact("job", 1)
    assert printed(store) == b"old logs go on"
    assert len(storage.sizes("logs", "job")) == 1


def test_an_object_store_that_does_not_answer_is_said_to(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from s3fs import S3FileSystem

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    S3FileSystem.clear_instance_cache()
    storage = Storage(bucket)
    S3FileSystem.clear_instance_cache()
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:9"):
        storage.check()


def test_names_and_deleting(url: str) -> None:
    storage = Storage(url)
    assert storage.names("logs") == set()
    storage.delete("logs", "one")
    for name in (("logs", "one", "a"), ("logs", "one", "b"), ("logs", "two", "a"), ("code", "three")):
        storage.put(io.BytesIO(b"content"), *name)
    assert storage.names("logs") == {"one", "two"}
    storage.delete("logs", "one")
    storage.delete("code", "three")
    assert (storage.names("logs"), storage.names("code")) == ({"two"}, set())
    assert storage.sizes("logs") == {("two", "a"): 7}
