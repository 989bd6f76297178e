"""What `plan`, `validate` and the like say of inputs that people have, as they read it: by the number of the report."""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import made
import numpy as np
import pytest
from PIL import Image

from epochal.cli.main import main


@dataclass(frozen=True)
class Case:
    """``make`` fills a folder; the ``command``, typed there, ends with ``code`` and says each of ``said``."""

    make: made.Make
    code: int
    said: tuple[str, ...]
    command: str = "plan job.yaml"


def text(content: str | bytes, code: int, *said: str, command: str = "plan job.yaml", **params: object) -> Case:
    return Case(lambda folder: made.table(folder, content, **params), code, said, command)  # type: ignore[arg-type]


def quoted_breaks(folder: Path) -> None:
    long = f'"{"x" * 60}\n{"y" * 60}, {{n}}"'
    made.table(folder, made.two_numbers("a,b,note,y", 12_000, f"{{a}},{{b}},{long},{{y}}"), exclude=["note"])


def junk_beside(folder: Path) -> None:
    made.pictures(folder)
    for kind in ("circle", "square"):
        (folder / "pics" / kind / "._00.png").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
        (folder / "pics" / kind / ".DS_Store").touch()


def latin1_name(folder: Path) -> None:
    made.pictures(folder)
    picture = folder / "pics" / "circle" / "01.png"
    os.rename(picture, os.fsencode(picture.parent) + b"/caf\xe9.png")


def no_picture_of_latin1_name(folder: Path) -> None:
    latin1_name(folder)
    (folder / "pics" / "circle" / os.fsdecode(b"caf\xe9.png")).write_bytes(b"")


def early_and_late(folder: Path) -> None:
    goal = {"metric": "val/accuracy", "mode": "max"}
    train = {"epochs": 50, "validate_every": "25ep", "early_stopping": {"metric": "val/loss", "mode": "min"}}
    made.job(folder, {"name": "wine", "params": {"validation": 0}}, train=train, objective=goal)


def one_feature(folder: Path) -> None:
    made.arrays(folder, "x1d.npz", x=np.arange(40.0), y=np.arange(40) % 2)


def text_labels(folder: Path) -> None:
    made.arrays(folder, x=np.arange(80.0).reshape(40, 2), y=np.array(["cat", "dog"] * 20))


def odd_place(folder: Path) -> None:
    """Excel's export of a western Windows, in a folder as people name them."""
    rows = made.two_numbers("größe;b;y", line="{a};{b};{y}").replace(".", ",")
    made.table(folder, rows.encode("cp1252"), name="my data #1/100% 'best'.csv")


def odd_place_read(folder: Path) -> None:
    odd_place(folder)
    made.job(
        folder,
        {"name": "csv", "params": {"path": "my data #1/100% 'best'.csv", "target": "y", "encoding": "cp1252"}},
    )


def pictures_at_odd_names(folder: Path) -> None:
    made.pictures(folder)
    (folder / "pics" / "circle").rename(folder / "pics" / "круг #1 100%")
    (folder / "pics" / "square" / "00.png").rename(folder / "pics" / "square" / "a b?c:d.PNG")


def kinds_of_pictures(folder: Path) -> None:
    """One class in each: what cameras, scanners, icons and the web give, some under another's ending."""
    made.pictures(folder)
    square, circle = folder / "pics" / "square", folder / "pics" / "circle"
    for seen, name in ((made.in_16_bits, "deep.png"), (made.in_alpha, "icon.png")):
        seen(made.shape("circle")).save(circle / name)
    made.shape("circle").convert("RGB").save(circle / "web.jpg", "webp")
    made.shape("square").convert("CMYK").save(square / "print.jpg", "jpeg")
    made.shape("square").convert("1").save(square / "fax.tif")
    made.shape("square").convert("P").save(square / "old.gif", save_all=True, append_images=[Image.new("P", (24, 24))])


def cut_jpeg(folder: Path) -> None:
    made.pictures(folder)
    path = folder / "pics" / "square" / "99.jpg"
    made.shape("square", 200).save(path)
    path.write_bytes(path.read_bytes()[:700])


CASES = {
    "01-doubled-column": text(
        made.two_numbers("a,a,y"), 2, "t.csv (row 1): found 'a' as the name of more than one column", "rename all but"
    ),
    "02-latin1-header": text(
        made.two_numbers("a,größe,y").encode("latin-1"),
        2,
        r"t.csv (line 1): found b'\xf6', expected text in UTF-8",
        "data.params.encoding; as cp1252 (Windows, western) the line reads 'a,größe,y'",
    ),
    "03-quoted-breaks": Case(quoted_breaks, 0, ("9,600 samples to train on", "delimiter ',', encoding utf-8")),
    "04-offset": text(made.stamps(1_700_000_000), 0, "160 samples to train on"),
    "05-question-mark": text(
        made.horsepower(), 0, "horsepower  number        2", "rows 34, 128 of t.csv become the mean"
    ),
    "05-few-rows": text("a,y\n1,p\n?,q\n5,p\n", 0, "row 3 of t.csv becomes the mean"),
    "09-one-class": text("a,y\n" + "1,yes\n" * 20, 2, "data: the target y has one class", "right column or file?"),
    "10-no-validation": Case(
        early_and_late,
        2,
        ("objective.metric: val/accuracy needs validation data", "train.early_stopping.metric: val/loss needs"),
    ),
    "15-junk": Case(junk_beside, 0, ("16 samples to train on, 4 to validate on", "4 others", "._00.png")),
    "17-latin1-name": Case(latin1_name, 0, ("16 samples to train on",)),
    "17-latin1-name-bad": Case(
        no_picture_of_latin1_name, 2, (r"caf\xe9.png cannot be read", "0 bytes"), "plan job.yaml --data"
    ),
    "18-text-labels": Case(text_labels, 0, ("target, class", "2 classes")),
    "18-one-feature": Case(one_feature, 0, ("float64, shape (40,)", "32 samples to train on")),
    "odd-place": Case(odd_place, 2, ("my data #1/100% 'best'.csv (line 1)", "the line reads 'größe;b;y'")),
    "odd-place-read": Case(
        odd_place_read, 0, ("größe", "32 samples to train on", "delimiter ';', encoding cp1252, decimal ','")
    ),
    "odd-pictures": Case(pictures_at_odd_names, 0, ("круг #1 100%", "16 samples to train on"), "plan job.yaml --data"),
    "kinds-of-pictures": Case(kinds_of_pictures, 0, ("all of the 26 samples can be read",), "plan job.yaml --data"),
    "cut-jpeg": Case(cut_jpeg, 2, ("square/99.jpg cannot be read", "damaged or cut off"), "plan job.yaml --data"),
    "packed-utf16": text(
        gzip.compress(made.two_numbers("a;b;y", line="{a};{b};{y}").encode("utf-16")),
        0,
        "delimiter ';', encoding utf-16",
        name="t #2.csv.gz",
    ),
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to type commands in; modules of one's own are forgotten."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield folder
    sys.modules.pop("nets", None)


@pytest.mark.parametrize("name", CASES)
def test_it_is_planned_or_refused_by_name(name: str, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    case = CASES[name]
    case.make(here)
    code = main(shlex.split(case.command))
    captured = capfd.readouterr()
    told = captured.out + captured.err
    assert code == case.code, told
    assert "Traceback" not in told
    assert not [one for one in case.said if one not in re.sub(r" +\n", "\n", told)], told


@pytest.mark.parametrize(
    "command", ["validate job.yaml", "plan job.yaml", "run job.yaml --dry-run", "submit job.yaml --dry-run"]
)
@pytest.mark.parametrize(("name", "code"), [("run_12:30:05.log", 0), ("a\\b.txt", 2)], ids=["colon", "backslash"])
def test_19_a_file_is_shipped_or_refused_before_it_starts(
    name: str, code: int, command: str, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made.code(here, beside=[name])
    assert main(shlex.split(command)) == code
    assert (name in capfd.readouterr().err) == bool(code)


def test_20_json_is_json_whatever_the_code_prints(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made.code(here, "print('loading my nets')\n" + made.NET, beside=["run_12:30:05.log"])
    assert main(["plan", "job.yaml", "-o", "json"]) == 0
    captured = capfd.readouterr()
    assert json.loads(captured.out)["plan"]["train_samples"] > 0
    assert "loading my nets" in captured.err


@pytest.mark.parametrize("workers", ["1", "2"])
def test_22_a_layer_that_is_not_used_is_told_alike(workers: str, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made.code(here, made.UNUSED)
    assert main(["plan", "job.yaml", "-s", f"resources.workers={workers}"]) == 0, capfd.readouterr()
    assert "Traceback" not in capfd.readouterr().err
