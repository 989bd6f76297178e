"""Replaces the values of secrets in what is written, also where a value comes in pieces."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from typing import Self

MASK = b"***"

_OWN = ("EPOCHAL_TOKEN", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
_TOKENS = re.compile(r"\bep_[A-Za-z0-9_-]{20,}|(?<=Bearer )[A-Za-z0-9+/=._~-]{16,}|(?<=Basic )[A-Za-z0-9+/=]{8,}")

SHORTEST = 4
"""Characters. What is shorter is in every other line by chance."""

_LONGEST = 2**16
"""Bytes that are held back of a stream in which one secret overlaps with the next."""


class Redactor:
    """Replaces secrets in a stream of bytes, and in text.

    ``values`` are replaced line by line, as they are and as they look in JSON, in a Python string, in a URL and in
    Base64. Of the stream is held back no more than what could be the beginning of one.

    >>> redactor = Redactor([b"hunter2-hunter2"])
    >>> redactor.feed(b"it is hunter2-hu"), redactor.feed(b"nter2, really"), redactor.text("hunter2-hunter2!")
    (b'it is ', b'***, really', '***!')
    """

    def __init__(self, values: Iterable[bytes]) -> None:
        self._needles = sorted({form for value in values for form in _forms(value)})
        self._longest = max(map(len, self._needles), default=0)
        self._by_first = {
            byte: [one for one in self._needles if one[0] == byte] for byte in {n[0] for n in self._needles}
        }
        self._held = b""

    @classmethod
    def of_variables(cls, names: Iterable[str]) -> Self:
        """Of the variables of this process's environment."""
        return cls(os.environb.get(os.fsencode(name), b"") for name in names)

    def feed(self, data: bytes) -> bytes:
        """What may be passed on now."""
        data = self._held + data
        spans = self._spans(data)
        safe = self._begun(data)
        for start, end in spans:
            if start < safe < end and end - start < _LONGEST:  # one that is whole, whose end may begin another
                safe = start
        self._held = data[safe:]
        return _masked(data[:safe], [(start, min(end, safe)) for start, end in spans if start < safe])

    def flush(self) -> bytes:
        """What was held back: nothing follows. The beginning of a secret is replaced too where it tells much of it."""
        held, self._held = self._held, b""
        whole = self._spans(held)
        begun = self._begun(held)
        if len(held) - begun >= SHORTEST:
            whole = _merged([*whole, (begun, len(held))])
        return _masked(held, whole)

    def text(self, text: str) -> str:
        data = text.encode("utf-8", "surrogatepass")
        spans = self._spans(data)
        return _masked(data, spans).decode("utf-8", "replace") if spans else text

    def _spans(self, data: bytes) -> list[tuple[int, int]]:
        return _merged([span for needle in self._needles for span in _found(needle, data)])

    def _begun(self, data: bytes) -> int:
        """Where the first of those secrets begins whose rest may be still to come."""
        for at in range(max(0, len(data) - self._longest + 1), len(data)):
            for needle in self._by_first.get(data[at], ()):
                if len(needle) > len(data) - at and needle.startswith(data[at:]):
                    return at
        return len(data)


def without_credentials(text: str) -> str:
    """What somebody else has put into words, an exception of a library above all, without what lets in elsewhere: our
    tokens, those and the passwords in this process's environment, and passwords in URLs.

    >>> without_credentials("Illegal header value b'Bearer ep_0123456789abcdefghijklmn\\\\n'")
    "Illegal header value b'Bearer ***\\\\n'"
    >>> without_credentials("cannot open postgresql://ada:hunter2@db/epochal")
    'cannot open postgresql://db/epochal'
    """
    from epochal.urls import without_password

    named = Redactor.of_variables(_OWN).text(without_password(text))
    return _TOKENS.sub(MASK.decode(), named)


def said(error: BaseException) -> str:
    """What an exception of somebody else's says, as it may be told; its class where it says nothing.

    >>> said(ValueError("cannot open postgresql://ada:hunter2@db/epochal")), said(KeyError())
    ('cannot open postgresql://db/epochal', 'KeyError')
    """
    return without_credentials(str(error)).strip() or type(error).__name__


def named(error: BaseException) -> str:
    """As ``said``, with its class, unless it is one of ours, which speak for themselves.

    >>> named(KeyError("width")), named(KeyError())
    ("KeyError: 'width'", 'KeyError')
    """
    from epochal.errors import EpochalError

    name, text = type(error).__name__, said(error)
    return text if text == name or isinstance(error, EpochalError) else f"{name}: {text}"


def trace() -> str:
    """The traceback of the exception that is handled, as it may be told."""
    from traceback import format_exc

    return without_credentials(format_exc())


def unreplaced(names: Iterable[str]) -> list[str]:
    """Of these variables those with a value, or a line of one, that is too short to be replaced."""
    return [name for name in names if any(0 < len(line) < SHORTEST for line in _lines(os.environ.get(name, "")))]


def _lines(value: str) -> list[str]:
    return [line.strip() for line in value.splitlines()]


def _forms(value: bytes) -> Iterator[bytes]:
    """How a value may look where it is written, none with a line break in it and none too short to be told apart."""
    # Imported here: most jobs have no secret, and what relays their output starts in 10 ms.
    from base64 import b64encode
    from json import dumps
    from urllib.parse import quote, quote_plus

    for line in _lines(os.fsdecode(value)):
        if len(line) >= SHORTEST:
            written = {line, dumps(line)[1:-1], dumps(line, ensure_ascii=False)[1:-1], repr(line)[1:-1]}
            quoted = {
                quote(os.fsencode(line), safe="/"),
                quote(os.fsencode(line), safe=""),
                quote_plus(os.fsencode(line)),
            }
            yield from (os.fsencode(form) for form in written | quoted)
    if len(whole := value.strip()) >= SHORTEST:
        for before in range(3):  # bytes in front of it in what was encoded, as in "user:password"
            encoded = b64encode(bytes(before) + whole)
            of_it_alone = encoded[(0, 2, 3)[before] : (before + len(whole)) * 8 // 6]
            if len(of_it_alone) > SHORTEST:
                yield from (of_it_alone, of_it_alone.translate(bytes.maketrans(b"+/", b"-_")))


def _found(needle: bytes, data: bytes) -> Iterator[tuple[int, int]]:
    at = data.find(needle)
    while at >= 0:
        yield at, at + len(needle)
        at = data.find(needle, at + 1)


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """In order, those that overlap as one."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def _masked(data: bytes, spans: list[tuple[int, int]]) -> bytes:
    parts, at = [], 0
    for start, end in spans:
        parts += [data[at:start], MASK]
        at = end
    return b"".join([*parts, data[at:]])
