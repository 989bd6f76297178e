"""Pictures of what a model does, for ``Task.pictures``. Drawn by Pillow alone: matplotlib takes a second to import."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, sqrt
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

PALETTE = (
    (230, 230, 230), (0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (213, 94, 0),
    (240, 228, 66), (110, 60, 160), (120, 120, 120),
)  # fmt: skip
"""Colours that colour-blind people tell apart: Okabe and Ito 2008, https://jfly.uni-koeln.de/color/."""
_TRUTH, _GUESS = PALETTE[1], PALETTE[6]
_GAP, _MARGIN, _PLOT, _LETTER = 2, 34, 220, 11
_MOST_CLASSES = 40


def tiles(rows: Sequence[Sequence[Tensor]], legend: str) -> Image:
    """Pictures in rows, each (channels, height, width) with values from 0 to 1, below a line that says what is where;
    small ones are enlarged.

    One channel is grey, three are red, green and blue; of any other number the first is shown.
    """
    from PIL import Image

    _, height, width = rows[0][0].shape
    scale = max(1, 64 // max(height, width))
    step = (width * scale + _GAP, height * scale + _GAP)
    sheet = Image.new("RGB", (step[0] * max(map(len, rows)), step[1] * len(rows)), "white")
    for down, row in enumerate(rows):
        for right, values in enumerate(row):
            shown = (values.clamp(0, 1) * 255).round().to(torch.uint8)
            shown = shown if len(shown) == 3 else shown[:1].expand(3, -1, -1)
            one = Image.fromarray(shown.permute(1, 2, 0).contiguous().numpy())
            larger = one.resize((width * scale, height * scale), Image.Resampling.NEAREST)
            sheet.paste(larger, (right * step[0], down * step[1]))
    return captioned(sheet, legend)


def coloured(labels: Tensor) -> Tensor:
    """A colour for each class of (height, width): (3, height, width), from 0 to 1."""
    colours = torch.tensor(PALETTE) / 255
    return colours[labels % len(PALETTE)].permute(2, 0, 1)


def framed(picture: Tensor, boxes: Tensor, classes: Tensor) -> Tensor:
    """A copy of (channels, height, width) with a frame in its class's colour around each of the ``boxes`` (boxes, 4):
    left, top, right and bottom in pixels. ``classes`` (boxes,) count from 0.
    """
    shown = (picture if len(picture) == 3 else picture[:1].expand(3, -1, -1)).clone()
    _, height, width = shown.shape
    # The first colour of the palette is the background's.
    colours = torch.tensor(PALETTE)[1 + classes.long() % (len(PALETTE) - 1)] / 255
    for box, colour in zip(boxes.round().long().tolist(), colours[..., None], strict=True):
        left, right = (min(max(x, 0), width - 1) for x in (box[0], box[2] - 1))
        top, bottom = (min(max(y, 0), height - 1) for y in (box[1], box[3] - 1))
        if left <= right and top <= bottom:  # of a model that knows nothing yet sides may be exchanged
            shown[:, [top, bottom], left : right + 1] = colour[..., None]
            shown[:, top : bottom + 1, [left, right]] = colour[..., None]
    return shown


def confusion(targets: Tensor, guesses: Tensor, names: Sequence[str]) -> Image:
    """How often each class (a row) was taken for each (a column). Classes beyond the first forty are one."""
    count = min(len(names), _MOST_CLASSES)
    labels = [*names[: count - 1], "others"] if count < len(names) else list(names)
    pairs = targets.clamp(max=count - 1) * count + guesses.clamp(max=count - 1)
    table = torch.bincount(pairs.flatten(), minlength=count * count).reshape(count, count)
    cell = 28
    left = 2 * _GAP + 7 * min(12, max(map(len, labels)))
    sheet, pen = _sheet(left + count * cell, 3 * _LETTER + count * cell)
    pen.text((left, _GAP), "taken for", fill="black")
    for down in range(count):
        top = 3 * _LETTER + down * cell
        pen.text((_GAP, top + 8), labels[down][:12], fill="black")
        pen.text((left + down * cell + _GAP, _GAP + _LETTER + 4), labels[down][:4], fill="black")
        of_all = max(1, int(table[down].sum()))
        for right in range(count):
            value, x = int(table[down, right]), left + right * cell
            strength = value / of_all
            colour = _TRUTH if down == right else _GUESS
            fill = tuple(round(255 - (255 - one) * strength) for one in colour)
            pen.rectangle((x, top, x + cell - _GAP, top + cell - _GAP), fill=fill)
            if value:
                pen.text((x + 3, top + 8), str(value), fill="white" if strength > 0.5 else "black")
    return sheet


def scatter(targets: Tensor, guesses: Tensor) -> Image:
    """Predictions (samples,) over what they should be, and the line on which they would be right."""
    low, high = _bounds(torch.cat([targets, guesses]))
    sheet, pen = _sheet(_PLOT + _MARGIN + 10, _PLOT + _MARGIN)
    _axes(pen, (_MARGIN, 8), (low, high))
    pen.line((_MARGIN, 8 + _PLOT, _MARGIN + _PLOT, 8), fill=PALETTE[9])
    for target, guess in zip(targets.tolist(), guesses.tolist(), strict=True):
        x = _MARGIN + _PLOT * (target - low) / (high - low)
        y = 8 + _PLOT * (high - guess) / (high - low)
        pen.ellipse((x - 2, y - 2, x + 2, y + 2), fill=_TRUTH)
    pen.text((_MARGIN + _PLOT // 2, 10 + _PLOT + _LETTER), "target", fill="black")
    return sheet


def embedding(points: Tensor, labels: Tensor, legend: str) -> Image:
    """``points`` (samples, values) along the two directions in which they differ most, in the colours of their
    ``labels`` (samples,), from 0; below a line of ``legend``.

    Principal components: Pearson 1901, https://doi.org/10.1080/14786440109462720.
    """
    apart = points.float() - points.float().mean(0)
    flat = apart @ torch.linalg.svd(apart, full_matrices=False)[2][:2].T
    flat = torch.nn.functional.pad(flat, (0, 2 - flat.shape[1]))
    low, high = _bounds(flat)
    sheet, pen = _sheet(2 * _PLOT + 8, 2 * _PLOT + 8)
    pen.rectangle((0, 0, 2 * _PLOT + 7, 2 * _PLOT + 7), outline="black")
    for (right, up), label in zip(flat.tolist(), labels.tolist(), strict=True):
        x, y = (4 + 2 * _PLOT * share for share in ((right - low) / (high - low), (high - up) / (high - low)))
        pen.ellipse((x - 2, y - 2, x + 2, y + 2), fill=PALETTE[1 + label % (len(PALETTE) - 1)])
    return captioned(sheet, legend)


def curves(targets: Tensor, guesses: Tensor) -> Image:
    """What comes (blue) and what was predicted (orange) of a few samples, (samples, values) each."""
    count = min(9, len(targets))
    columns = ceil(sqrt(count))
    wide, high_one = _PLOT + _MARGIN + 10, _PLOT // 2 + _MARGIN
    sheet, pen = _sheet(columns * wide, ceil(count / columns) * high_one)
    low, high = _bounds(torch.cat([targets[:count].flatten(), guesses[:count].flatten()]))
    for index in range(count):
        corner = ((index % columns) * wide + _MARGIN, (index // columns) * high_one + 8)
        _axes(pen, corner, (low, high), _PLOT // 2)
        for values, colour in ((targets[index], _TRUTH), (guesses[index], _GUESS)):
            steps = max(1, len(values) - 1)
            points = [
                (corner[0] + _PLOT * place / steps, corner[1] + _PLOT // 2 * (high - value) / (high - low))
                for place, value in enumerate(values.tolist())
            ]
            pen.line(points, fill=colour, width=2)
    return captioned(sheet, "blue: what comes; orange: what is predicted")


def captioned(picture: Image, text: str) -> Image:
    """With a line of ``text`` above it."""
    sheet, pen = _sheet(max(picture.width, 7 * len(text)), picture.height + 2 * _LETTER)
    pen.text((_GAP, _GAP), text, fill="black")
    sheet.paste(picture, (0, 2 * _LETTER))
    return sheet


def _sheet(width: int, height: int) -> tuple[Image, Any]:
    from PIL import Image, ImageDraw

    sheet = Image.new("RGB", (width, height), "white")
    return sheet, ImageDraw.Draw(sheet)


def _bounds(values: Tensor) -> tuple[float, float]:
    low, high = (float(one) for one in values.aminmax())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _axes(pen: Any, corner: tuple[int, int], bounds: tuple[float, float], height: int = _PLOT) -> None:
    left, top = corner
    pen.rectangle((left, top, left + _PLOT, top + height), outline="black")
    pen.text((left - _MARGIN + _GAP, top), f"{bounds[1]:.3g}", fill="black")
    pen.text((left - _MARGIN + _GAP, top + height - _LETTER), f"{bounds[0]:.3g}", fill="black")
