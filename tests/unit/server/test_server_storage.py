"""Files of the server, in a folder and behind fsspec: one behaviour."""

from __future__ import annotations

import io
import stat
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

from epochal.errors import UnreachableError, UsageError
from epochal.server.log_store import LogStore, Stream
from epochal.server.storage import Storage


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """Of an S3 server on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "nobody's")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        boto3.client("s3").create_bucket(Bucket="epochal")
        yield "s3://epochal"
        server.stop()


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


def test_what_is_not_there_has_no_size(storage: Storage) -> None:
    assert storage.size("code", "none.zip") is None
    assert storage.sizes("logs", "none") == {}


def test_appending_goes_on_from_what_is_held(storage: Storage) -> None:
    name = ("logs", "a", "0")
    storage.append(name, 0, b"one")
    storage.append(name, 3, b" two")
    assert storage.read(name, 0, 100) == b"one two"


def test_appending_after_a_torn_write_replaces_what_was_torn(storage: Storage) -> None:
    name = ("logs", "a", "0")
    storage.append(name, 0, b"one torn")
    storage.append(name, 3, b" two")
    assert storage.read(name, 0, 100) == b"one two"


def test_sizes_are_of_everything_below(storage: Storage) -> None:
    storage.append(("logs", "a", "1", "0"), 0, b"x")
    storage.append(("logs", "a", "2", "0"), 0, b"xyz")
    storage.append(("logs", "ab", "1", "0"), 0, b"other")
    assert storage.sizes("logs", "a") == {("1", "0"): 1, ("2", "0"): 3}


@pytest.mark.parametrize("part", ["..", ".", "", "a/b", "/etc", "a\\b", "\x00", ".hidden", "a\n", "x" * 300])
def test_no_name_leads_out_of_the_folder(storage: Storage, part: str) -> None:
    with pytest.raises(UsageError):
        storage.size("code", part)
    with pytest.raises(UsageError):
        storage.append(("logs", part), 0, b"x")


def test_others_cannot_read_the_folder(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "kept"))
    storage.append(("logs", "a"), 0, b"x")
    storage.put(io.BytesIO(b"x"), "code", "b")
    written = [tmp_path / "kept", *(tmp_path / "kept").rglob("*")]
    assert not [path for path in written if stat.S_IMODE(path.stat().st_mode) & 0o077]


def test_storage_that_is_gone_is_told(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "kept"))
    storage.check()
    (tmp_path / "kept").rmdir()
    with pytest.raises(UnreachableError, match="missing"):
        storage.check()


def test_an_unknown_kind_of_url_is_refused() -> None:
    with pytest.raises(UsageError, match="nonsense"):
        Storage("nonsense://x")


def test_two_servers_on_one_storage_go_on_with_a_log_in_turns(url: str) -> None:
    one, other, stream = LogStore(Storage(url)), LogStore(Storage(url)), Stream(1, 0)
    assert one.append("job", stream, 0, b"first\n") == 6
    assert other.append("job", stream, 3, b"st\nsecond\n") == 13
    assert one.append("job", stream, 13, b"third\n") == 19
    assert one.append("job", stream, 100, b"after a gap\n") == 19
    log = other.logs("job")[stream]
    assert other.read("job", stream, log, 0, 100) == b"first\nsecond\nthird\n"


def test_an_object_store_that_does_not_answer_is_said_to(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
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
