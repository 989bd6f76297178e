"""Just enough of Markdown to hold the documents to their word."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from code_base import DOCS, ROOT

DOCUMENTS = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *ROOT.glob("[cdh]*/README.md")])

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_INLINE = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language and its text."""

    language: str
    text: str

    @property
    def path(self) -> str | None:
        """The file it stands for, where its first line is a comment that names one: ``# jobs/maxout.yaml``."""
        match = re.match(r"# (\S+\.(?:py|yaml))\n", self.text)
        return match[1] if match else None


def blocks(document: Path) -> list[Block]:
    return [Block(*match) for match in _BLOCK.findall(document.read_text(encoding="utf-8"))]


def links(document: Path) -> list[str]:
    return _LINK.findall(_BLOCK.sub("", document.read_text(encoding="utf-8")))


def anchors(document: Path) -> set[str]:
    """The names by which its headings are linked."""
    headings = _HEADING.findall(_BLOCK.sub("", document.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def sections(document: Path) -> dict[str, str]:
    """Heading, without back-quotes -> the text below it up to the next heading."""
    parts = re.split(r"^#+ (.+)$", document.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {heading.replace("`", ""): text for heading, text in zip(parts[1::2], parts[2::2], strict=True)}


def commands(document: Path) -> Iterator[str]:
    """Every command line that a reader is told to type: in a shell block, or inline as code."""
    for block in blocks(document):
        if block.language == "sh":
            yield from (line.partition("  #")[0].strip() for line in block.text.splitlines() if line.strip())
    for code in _INLINE.findall(_BLOCK.sub("", document.read_text(encoding="utf-8"))):
        if code.split()[0] in ("epochal", "make") and len(code.split()) > 1:
            yield code
