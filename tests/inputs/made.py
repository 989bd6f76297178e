"""Files as people have them, made small, and the job beside them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image, ImageDraw

CNN = {"name": "cnn", "params": {"channels": [8]}}
TRAINED_WELL = {"epochs": 30, "global_batch_size": 8, "optimizer": {"name": "adam", "lr": 0.01}}
NET = """
from math import prod
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, info):
        super().__init__()
        self.a = nn.Linear(prod(info.input.shape), 16)
        self.b = nn.Linear(16, info.target.width)
    def forward(self, x):
        return self.b(torch.relu(self.a(x.flatten(1))))
"""
UNUSED = NET.replace("        self.b", "        self.unused = nn.Linear(16, 16)\n        self.b")

Make = Callable[[Path], None]


def job(folder: Path, data: dict[str, Any], **changes: Any) -> None:
    """``job.yaml``: a small net, trained shortly."""
    spec = {
        "version": 1,
        "name": "people",
        "model": {"name": "mlp", "params": {"hidden": [8]}},
        "data": data,
        "train": {"epochs": 2, "global_batch_size": 8},
        **changes,
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(spec, allow_unicode=True), encoding="utf-8")


def table(folder: Path, content: str | bytes, name: str = "t.csv", train: Any = None, **params: Any) -> None:
    """A table, and a job that learns ``y`` from it."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    changes = {"train": train} if train else {}
    job(folder, {"name": "csv", "params": {"path": name, "target": "y", **params}}, **changes)


def two_numbers(header: str = "a,b,y", count: int = 40, line: str = "{a},{b},{y}") -> str:
    """Rows whose class tells whether the sum of two numbers is positive."""
    numbers = random.Random(0)
    rows = [(round(numbers.gauss(0, 1), 3), round(numbers.gauss(0, 1), 3)) for _ in range(count)]
    cells = [line.format(a=a, b=b, y="yes" if a + b > 0 else "no", n=index) for index, (a, b) in enumerate(rows)]
    return "\n".join([header, *cells, ""])


def stamps(start: int) -> str:
    """The first hundred of 200 seconds are early."""
    rows = [f"{start + second},{'early' if second < 100 else 'late'}" for second in range(200)]
    return "\n".join(["t,y", *rows, ""])


def horsepower() -> str:
    """Two cells of a column of numbers are question marks."""
    rows = [f"{60 + n / 2 if n not in (32, 126) else '?'},{2000 + 7 * n},{round(40 - n / 20, 1)}" for n in range(200)]
    return "\n".join(["horsepower,weight,y", *rows, ""])


def shape(kind: str, size: int = 24) -> Image.Image:
    """A white circle or square on black, in grey."""
    image = Image.new("L", (size, size))
    draw = ImageDraw.Draw(image)
    box = (size // 4, size // 4, 3 * size // 4, 3 * size // 4)
    draw.ellipse(box, fill=255) if kind == "circle" else draw.rectangle((2, 2, size - 3, size - 3), fill=255)
    return image


def pictures(folder: Path, seen: Callable[[Image.Image], Image.Image] = lambda image: image, **params: Any) -> None:
    """Ten circles and ten squares, each moved a little; ``seen`` is how they are kept."""
    for kind in ("circle", "square"):
        (folder / "pics" / kind).mkdir(parents=True)
        for index in range(10):
            image = Image.new("L", (24, 24))
            image.paste(shape(kind), (index % 3 - 1, index // 4 - 1))
            seen(image).save(folder / "pics" / kind / f"{index:02}.png")
    data = {"name": "image-folder", "params": {"path": "pics", "size": [16, 16], **params}}
    job(folder, data, model=CNN, train=TRAINED_WELL)


def in_16_bits(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image).astype(np.uint16) * 117 + 1000)


def in_alpha(image: Image.Image) -> Image.Image:
    """An icon: all of it black, its shape in how opaque it is."""
    icon = Image.new("RGBA", image.size)
    icon.putalpha(image)
    return icon


def arrays(folder: Path, name: str = "d.npz", **given: Any) -> None:
    np.savez(folder / name, **given)
    job(folder, {"name": "npz", "params": {"path": name}})


def code(folder: Path, source: str = NET, beside: Iterable[str] = (), **changes: Any) -> None:
    """A net of one's own in the job's folder, and empty files ``beside`` it."""
    (folder / "nets.py").write_text(source, encoding="utf-8")
    for name in beside:
        (folder / name).touch()
    job(folder, {"name": "wine"}, model={"name": "nets:Net"}, code={"dir": "."}, **changes)
