"""The user's own code in a command's process: what it prints, and what would end the process."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torchmetrics  # noqa: F401 - starts a process while it is imported, which no test here may
import yaml

import epochal.catalog.tasks.classification  # noqa: F401 - torchmetrics, imported first by the code, starts processes
from epochal.cli.main import main

NETS = """
import atexit, ctypes, logging, os, signal, sys, threading
import torch
from math import prod
from torch import nn
from torchmetrics import MetricCollection
from epochal.catalog.data import DataInfo, Field, LoadedData, TensorSplit
from epochal.catalog.task import Loss

{on_import}

def data():
    {in_data}
    split = TensorSplit({{"input": torch.ones(8, 5), "target": torch.zeros(8, dtype=torch.int64)}})
    return LoadedData(split, None, DataInfo(Field((5,)), Field((), torch.int64, 2)), "0", "")

class Task:
    def loss(self, model, batch):
        {in_task}
        outputs = model(batch["input"])
        return Loss(outputs.sum() * 0, None, outputs)
    def metrics(self):
        return MetricCollection([])

class Net(nn.Module):
    def __init__(self, info):
        super().__init__()
        {in_model}
        self.layer = nn.Linear(prod(info.input.shape), info.target.width)
    def forward(self, x):
        {in_forward}
        return self.layer(x)
"""
PLACES = ("on_import", "in_data", "in_task", "in_model", "in_forward")
PRINTS = [
    "print('said')",
    "os.write(1, b'said')",
    "os.system('echo said')",
    "sys.stdout.write('said')",
    "sys.stdout.buffer.write(b'said')",
    "logging.StreamHandler(sys.stdout).emit(logging.makeLogRecord({'msg': 'said'}))",
    "ctypes.CDLL(None).write(1, b'said', 4)",
    "print('said', file=open('/dev/stdout', 'w'))",
    "threading.Thread(target=print, args=['said']).start()",
    "sys.stdout = open(1, 'w', closefd=False); print('said')",
    "print('said'); sys.stdout.close()",
    "print('said', flush=True); os.close(1)",
    "print('said \\udcff')",
]
ENDS = {
    "sys.exit(0)": "SystemExit: 0",
    "sys.exit('no GPU')": "SystemExit: no GPU",
    "exit()": "SystemExit: None",
    "raise SystemExit": "SystemExit",
    "raise KeyboardInterrupt": "KeyboardInterrupt",
    "import argparse; argparse.ArgumentParser().parse_args(['--x'])": "SystemExit: 2",
    "os._exit(3)": "os._exit(3)",
    "os._exit(status=0)": "os._exit(status=0)",
    "os.abort()": "os.abort()",
}
OWN_KIND = "raise type('Odd', (BaseException,), {})('width')"
CAUGHT = [
    "try: os._exit(3)\n{0}except BaseException: pass",
    "try: os._exit(3)\n{0}except SystemExit as error: raise RuntimeError('no') from error",
    "one = threading.Thread(target=os._exit, args=[3]); one.start(); one.join()",
]

Planned = Callable[..., int]


def everywhere(what: str) -> list[tuple[str, str]]:
    return [(what, place) for place in PLACES]


def in_turn(cases: list[str]) -> list[tuple[str, str]]:
    return [(what, PLACES[index % len(PLACES)]) for index, what in enumerate(cases)][1:]


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Planned]:
    """Plan with a module of which one place does something."""
    monkeypatch.setattr(sys, "path", [*sys.path])

    def plan(what: str, where: str, *arguments: str) -> int:
        lines = {place: what if place == where else "pass" for place in PLACES}
        (tmp_path / "nets.py").write_text(NETS.format(**lines), encoding="utf-8")
        spec = {
            "version": 1, "name": "own", "code": {"dir": "."}, "train": {"epochs": 1},
            "model": {"name": "nets:Net"}, "data": {"name": "nets:data"}, "task": {"name": "nets:Task"},
        }  # fmt: skip
        (tmp_path / "job.yaml").write_text(yaml.safe_dump(spec))
        return main(["plan", str(tmp_path / "job.yaml"), *arguments])

    yield plan
    sys.modules.pop("nets", None)


@pytest.mark.parametrize(("what", "where"), [*everywhere(PRINTS[0]), *in_turn(PRINTS)])
def test_what_the_code_prints_is_not_the_commands_output(
    planned: Planned, capfd: pytest.CaptureFixture[str], what: str, where: str
) -> None:
    assert planned(what, where, "-o", "json") == 0
    captured = capfd.readouterr()
    assert json.loads(captured.out)["spec"]["name"] == "own"
    assert "said" in captured.err
    print("the next command's")
    assert capfd.readouterr().out == "the next command's\n"


@pytest.mark.parametrize(("what", "where"), [*everywhere("sys.exit(0)"), *in_turn([*ENDS])])
def test_code_that_ends_the_interpreter_is_an_error_that_names_the_line(
    planned: Planned, capfd: pytest.CaptureFixture[str], what: str, where: str
) -> None:
    status = "os._exit(0)" if "status" in what else ENDS[what]
    what = what.replace("status=", "")
    assert planned(what, where) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    assert f"error: your code ended the interpreter by {status} (nets.py, line " in captured.err
    assert f": {what})" in captured.err
    assert "hint: raise an exception instead" in captured.err


@pytest.mark.parametrize("where", ["on_import", "in_forward"])
@pytest.mark.parametrize("what", CAUGHT)
@pytest.mark.filterwarnings("ignore:Exception in thread")
def test_code_cannot_hide_that_it_would_end_the_interpreter(
    planned: Planned, capfd: pytest.CaptureFixture[str], what: str, where: str
) -> None:
    assert planned(what.format(" " * (8 if where == "in_forward" else 0)), where) == 2
    assert "your code ended the interpreter by os._exit(3)" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("what", "where"),
    [*everywhere("raise KeyError('width')"), ("raise GeneratorExit('width')", "in_data"), *everywhere(OWN_KIND)[:1]],
)
def test_an_exception_of_the_code_names_its_line(
    planned: Planned, capfd: pytest.CaptureFixture[str], what: str, where: str
) -> None:
    assert planned(what, where) == 2
    said = capfd.readouterr().err
    assert re.search(r"(KeyError|GeneratorExit|Odd): '?width'?", said)
    assert "(nets.py, line " in said
    assert "Traceback" not in said


def test_threads_that_the_code_leaves_running_are_told(planned: Planned, capfd: pytest.CaptureFixture[str]) -> None:
    start = "threading.Thread(target=threading.Event().wait, args=[1], name='poller').start()"
    assert planned(start, "on_import") == 0
    assert "left threads running (poller)" in capfd.readouterr().err


def test_ctrl_c_is_no_error_of_the_code(planned: Planned, capfd: pytest.CaptureFixture[str]) -> None:
    assert planned("signal.raise_signal(signal.SIGINT)", "in_model") == 130
    assert "your code" not in capfd.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


FILES = {
    "a\\b": "a\\b leads elsewhere on Windows",
    "epochal.py": "in place of what they are made of: epochal.py",
    "new\nline": "has a control character",
    "caf\udce9.png": "caf\\xe9.png has a name that is no text",
}
SPEC = "version: 1\nname: own\nmodel: {name: mlp}\ndata: {name: digits}\ntrain: {epochs: 1}\ncode: {dir: .}\n"
COMMANDS = (["validate"], ["plan"], ["submit", "--dry-run"], ["submit"], ["run"], ["run", "--dry-run"])


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("name", FILES, ids=ascii)
def test_a_file_that_cannot_be_shipped_is_refused_before_anything_starts(
    command: list[str], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("epochal.engine.connection.connect", None)
    (tmp_path / name).touch()
    (tmp_path / "job.yaml").write_text(SPEC)
    job = [*command, str(tmp_path / "job.yaml")]
    assert main(job) == 2
    captured = capsys.readouterr()
    assert FILES[name] in captured.err
    assert "code.exclude" in captured.err
    assert captured.out == ""


def test_validate_lists_it_with_the_other_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "torch.py").touch()
    (tmp_path / "job.yaml").write_text(SPEC)
    assert main(["validate", str(tmp_path / "job.yaml"), "-o", "json"]) == 2
    (checked,) = json.loads(capsys.readouterr().out)["specs"]
    assert (checked["valid"], checked["problems"][0]["path"]) == (False, "code")


@pytest.mark.parametrize("command", ["validate", "plan", "run --dry-run"])
def test_what_the_code_hides_is_told(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "torch.py").touch()
    (tmp_path / "random.py").touch()
    (tmp_path / "job.yaml").write_text(SPEC)
    assert main([*command.split(), str(tmp_path / "job.yaml"), "-s", "code.exclude=[torch.py]"]) == 0
    captured = capsys.readouterr()
    assert "warning: these files of your code have the names of Python's own modules" in captured.err
    assert "random.py" not in captured.out
