"""One self-contained HTML page: no network, no script; light or dark as its reader prefers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --text: #1a1a1a; --soft: #666; --line: #ddd; --back: #fff; --accent: #0b63ce }
@media (prefers-color-scheme: dark) {
  :root { --text: #e8e8e8; --soft: #999; --line: #3a3a3a; --back: #161616; --accent: #6cb2ff } }
body { font: 14px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back);
  max-width: 1100px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin: 0 0 .3rem } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
p { margin: .4rem 0; max-width: 80ch } .soft { color: var(--soft) }
.wide { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line); white-space: nowrap }
th { color: var(--soft); font-weight: 600 } code { font-size: .95em }
svg { display: block; max-width: 100%; height: auto } svg text { fill: var(--text); font-size: 11px }
svg .soft { fill: var(--soft) } svg .axis { stroke: var(--line) }
"""


def page(title: str, *parts: str) -> str:
    """A whole document. ``parts`` are HTML."""
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{escape(title)}</h1>",
            *parts,
            "</body></html>",
            "",
        ]
    )


def section(title: str, *parts: str) -> str:
    return "\n".join([f"<section><h2>{escape(title)}</h2>", *parts, "</section>"])


def paragraph(text: str, soft: bool = False) -> str:
    kind = ' class="soft"' if soft else ""
    return f"<p{kind}>{escape(text)}</p>"


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Cells are any values; numbers with six digits, None as nothing."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "\n".join(f"<tr>{''.join(f'<td>{escape(cell(value))}</td>' for value in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def cell(value: Any) -> str:
    """
    >>> cell(0.123456789), cell(3.0), cell(None), cell([8, 16])
    ('0.123457', '3', '', '[8, 16]')
    """
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else str(value)
    return "" if value is None else str(value)
