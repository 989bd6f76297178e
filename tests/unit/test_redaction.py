"""What of a secret is replaced, however it is written and however it is cut."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, quote_plus

import pytest

from epochal.redaction import Redactor, unreplaced, without_credentials

SECRET = 'p@ss "w\\rd/größe+1'
KEY = "-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END KEY-----\n"


def through(redactor: Redactor, *pieces: bytes) -> bytes:
    return b"".join([*map(redactor.feed, pieces), redactor.flush()])


@pytest.mark.parametrize(
    "written",
    [
        SECRET,
        repr(SECRET)[1:-1],
        json.dumps(SECRET)[1:-1],
        json.dumps(SECRET, ensure_ascii=False)[1:-1],
        quote(SECRET),
        quote(SECRET, safe=""),
        quote_plus(SECRET),
    ],
)
def test_every_way_it_is_written_is_replaced_wherever_it_is_cut(written: str) -> None:
    data = f"a token {written}, and more\n".encode()
    for at in range(len(data)):
        assert through(Redactor([SECRET.encode()]), data[:at], data[at:]) == b"a token ***, and more\n", at
    assert through(Redactor([SECRET.encode()]), *(bytes([byte]) for byte in data)) == b"a token ***, and more\n"
    assert Redactor([SECRET.encode()]).text(f"({written})") == "(***)"


@pytest.mark.parametrize("before", ["", "a", "ab", "abc", "user:"])
@pytest.mark.parametrize("after", ["", "\n", " and more"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_base64_of_a_text_with_it(before: str, after: str, encode: object) -> None:
    secret = "s3cr3t-\xff\xfe-t0ken?>"
    encoded = encode(f"{before}{secret}{after}".encode()).decode()  # type: ignore[operator]
    told = Redactor([secret.encode()]).text(f"Authorization: Basic {encoded}")
    assert "***" in told
    whole = base64.b64encode(secret.encode()).decode() + base64.urlsafe_b64encode(secret.encode()).decode()
    assert not [at for at in range(len(told) - 5) if told[at : at + 6] in whole]


@pytest.mark.parametrize(
    ("values", "pieces", "expected"),
    [
        (["abcdef"], ["xxabc", "def"], "xx***"),
        (["abcdef"], ["xxabc", "xyz"], "xxabcxyz"),
        (["abcdef"], ["ab"], "ab"),  # no more than chance
        (["abcdef"], ["abcde"], "***"),  # the job was killed in the middle of it
        (["abcdef"], ["abc", "\nabcdef\n"], "abc\n***\n"),
        (["abcd", "abcdefgh"], ["abcd", "efgh"], "***"),
        (["abcd", "abcdefgh"], ["abcd", "efxx"], "***efxx"),
        (["abcdef", "efghij"], ["abcdef", "ghij!"], "***!"),  # they overlap
        (["aaaa"], ["aaaaaaa b"], "*** b"),
        (["abcd"], ["abcdabcd"], "******"),
        (["abc"], ["abc"], "abc"),  # too short
        ([""], ["abc"], "abc"),
        (["  padded  "], ["it is padded."], "it is ***."),
        ([KEY], [KEY], "***\n***\n***\n***\n"),
        ([KEY], [f"key: {KEY!r}"], "key: '***\\n***\\n***\\n***\\n'"),
        ([KEY], [KEY.replace("\n", "\r\n")], "***\r\n***\r\n***\r\n***\r\n"),
        (["größe"], ["gr", "öße"], "***"),
    ],
)
def test_streams(values: list[str], pieces: list[str], expected: str) -> None:
    redactor = Redactor([value.encode() for value in values])
    assert through(redactor, *(piece.encode() for piece in pieces)).decode() == expected


def test_no_more_is_held_back_than_could_be_a_secret() -> None:
    redactor = Redactor([b"hunter2-hunter2"])
    assert redactor.feed(b"Loading ") == b"Loading "
    assert redactor.feed(b"the hunt") == b"the "
    assert redactor.feed(b"ing season") == b"hunting season"
    assert redactor.feed(bytes(range(256)) * 4) == bytes(range(256)) * 4


def test_a_secret_that_overlaps_with_itself_is_not_kept_in_memory() -> None:
    redactor = Redactor([b"----"])
    written = b"".join([redactor.feed(b"-" * 30_000) for _ in range(4)])
    assert len(redactor._held) < 65_536
    assert set(written) == set(b"*")
    assert b"----" not in redactor.flush()


def test_a_long_key_does_not_slow_a_stream_down() -> None:
    key = "\n".join(base64.b64encode(bytes([line]) * 48).decode() for line in range(60))
    redactor = Redactor([key.encode()])
    assert sum(len(redactor.feed(b"x" * 65536)) for _ in range(20)) == 20 * 65536


OURS = "ep_" + "aB3-_" * 8


@pytest.mark.parametrize(
    ("said", "left"),
    [
        (f"Illegal header value b'Bearer {OURS}\\n'", "Illegal header value b'Bearer ***\\n'"),
        (f"Invalid header value {OURS!r}", "Invalid header value '***'"),
        ("Invalid header value: 'Bearer abcdefghijklmnop.qrs'", "Invalid header value: 'Bearer ***'"),
        ("401 for user:tracking-pw\\n", "401 for user:***\\n"),
        ("cannot open postgresql://ada:hunter2@db/epochal", "cannot open postgresql://db/epochal"),
        ("https://ada:hunter2@mlflow.example/api: 503", "https://mlflow.example/api: 503"),
        ("ep_ is short, Bearer is a word", "ep_ is short, Bearer is a word"),
        ("the step ep_3", "the step ep_3"),
    ],
)
def test_credentials_in_what_a_library_says(said: str, left: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "tracking-pw")
    assert without_credentials(said) == left


def test_what_is_too_short_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PIN": "123", "KEY": KEY, "LINES": "first line\nab", "EMPTY": ""}.items():
        monkeypatch.setenv(name, value)
    assert unreplaced(["PIN", "KEY", "LINES", "EMPTY", "NONE"]) == ["PIN", "LINES"]
