"""What Python people have in hand is taken for what it stands for, or named by its place in the spec."""

from __future__ import annotations

import argparse
import datetime
import enum
import fractions
import pickle
import types
from collections import OrderedDict, namedtuple
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any

import numpy
import pandas
import pydantic
import pytest
import torch

from epochal.client import Client
from epochal.client.plain import plain, seconds_of
from epochal.client.submission import load
from epochal.errors import SpecError, UsageError
from epochal.spec.job import JobSpec

SPEC: dict[str, Any] = {
    "version": 1,
    "name": "py",
    "model": {"name": "mlp", "params": {"hidden": [4]}},
    "data": {"name": "wine"},
    "train": {"epochs": 1},
}


class Name(enum.Enum):
    MLP = "mlp"


class Level(enum.IntEnum):
    TWO = 2


class Text(enum.StrEnum):
    WINE = "wine"


class Params(pydantic.BaseModel):
    hidden: list[int] = [32]


@dataclass
class Train:
    epochs: int = 3
    global_batch_size: Any = field(default_factory=lambda: numpy.int32(16))


Pair = namedtuple("Pair", "width height")

TAKEN = {
    "int64": (numpy.int64(3), 3),
    "uint8": (numpy.uint8(3), 3),
    "float64": (numpy.float64(0.1), 0.1),
    "float32": (numpy.float32(0.1), 0.1),
    "float16": (numpy.float16(0.5), 0.5),
    "bool_": (numpy.bool_(True), True),
    "str_": (numpy.str_("mlp"), "mlp"),
    "array": (numpy.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
    "array32": (numpy.array([0.1, 0.2], "float32"), [0.1, 0.2]),
    "array0": (numpy.array(7), 7),
    "datetime64": (numpy.datetime64("2026-01-02"), "2026-01-02"),
    "timedelta64": (numpy.timedelta64(90_000_000_000, "ns"), "1m30s"),
    "tensor": (torch.tensor([1, 2]), [1, 2]),
    "tensor0": (torch.tensor(2), 2),
    "parameter": (torch.nn.Parameter(torch.ones(2)), [1.0, 1.0]),
    "size": (torch.Size([3, 4]), [3, 4]),
    "series": (pandas.Series([1, 2]), [1, 2]),
    "timestamp": (pandas.Timestamp("2026-01-02 03:04"), "2026-01-02T03:04:00"),
    "Timedelta": (pandas.Timedelta("90s"), "1m30s"),
    "timedelta": (datetime.timedelta(hours=2), "2h"),
    "date": (datetime.date(2026, 1, 2), "2026-01-02"),
    "path": (Path("a b") / "c", "a b/c"),
    "purepath": (PurePosixPath("x"), "x"),
    "enum": (Name.MLP, "mlp"),
    "intenum": (Level.TWO, 2),
    "strenum": (Text.WINE, "wine"),
    "tuple": ((1, numpy.int8(2)), [1, 2]),
    "namedtuple": (Pair(1, 2), [1, 2]),
    "range": (range(3), [0, 1, 2]),
    "decimal": (Decimal("0.25"), 0.25),
    "fraction": (fractions.Fraction(1, 4), 0.25),
    "pydantic": (Params(), {"hidden": [32]}),
    "dataclass": (Train(), {"epochs": 3, "global_batch_size": 16}),
    "namespace": (types.SimpleNamespace(a=numpy.int64(1)), {"a": 1}),
    "argparse": (argparse.Namespace(lr=0.1), {"lr": 0.1}),
    "ordered": (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
    "proxy": (types.MappingProxyType({"a": 1}), {"a": 1}),
    "keys": ({Name.MLP: 1, numpy.str_("b"): 2}, {"mlp": 1, "b": 2}),
    "none": (None, None),
}


@pytest.mark.parametrize("case", TAKEN)
def test_it_is_taken(case: str) -> None:
    given, expected = TAKEN[case]
    taken = plain(given, "spec")
    assert taken == expected
    assert type(taken) is type(expected)


class Odd:
    def tolist(self) -> None:
        raise RuntimeError("it is on another device")


LOOP: list[Any] = []
LOOP.append(LOOP)

REFUSED = {
    "object": (object(), "got object: taken are text"),
    "set": ({1, 2}, "it has no order: give sorted(...)"),
    "bytes": (b"x", "give text"),
    "generator": ((one for one in "ab"), "give list(...)"),
    "class": (torch.nn.Linear, "code is named by text"),
    "function": (len, "code is named by text"),
    "module": (torch.nn.ReLU(), "code is named by text"),
    "complex": (numpy.complex64(1j), "it is no real number"),
    "nat": (pandas.NaT, "it is no time"),
    "int-key": ({1: 2}, "its keys have to be text, and one is 1"),
    "loop": (LOOP, "it holds itself"),
    "raises": (Odd(), "it is on another device"),
    "surrogate": ("\ud800", "surrogates not allowed"),
    "frame": (pandas.DataFrame({"a": [1]}), "give list(...)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_named_by_its_place(case: str) -> None:
    given, said = REFUSED[case]
    params = {"hidden": [4, 8, given]}
    with pytest.raises(SpecError) as caught:
        load({**SPEC, "model": {"name": "mlp", "params": params}, "tags": {"a": given}})
    first, second = caught.value.problems[0], caught.value.problems[-1]
    assert first.path.startswith("model.params.hidden[2]")
    assert second.path.startswith("tags.a")
    assert said in str(first)
    assert said in str(second)


def test_a_spec_of_such_values_is_that_of_plain_ones() -> None:
    given = {
        "version": numpy.int64(1),
        "name": numpy.str_("py"),
        "model": {"name": Name.MLP, "params": Params(hidden=[4])},
        "data": {"name": Text.WINE},
        "train": Train(epochs=1),
        "limits": {"max_duration": pandas.Timedelta("2h")},
        "tags": {"lr": "1e-3", "octal": "0o17", "no": "no", "when": "2026-01-02"},
        "code": None,
    }
    plainly = {
        **SPEC,
        "train": {"epochs": 1, "global_batch_size": 16},
        "limits": {"max_duration": "2h"},
        "tags": given["tags"],
    }
    assert load(given).spec == load(plainly).spec
    assert load(given).spec.tags == given["tags"]


@pytest.mark.parametrize(
    "source",
    [JobSpec.model_validate(SPEC), types.MappingProxyType(SPEC), types.SimpleNamespace(**SPEC)],
    ids=["our-model", "proxy", "namespace"],
)
def test_a_spec_may_be_a_whole_object(source: Any) -> None:
    assert load(source).spec == load(SPEC).spec


@pytest.mark.parametrize("path", [str, Path, PurePosixPath], ids=["text", "path", "pure"])
def test_a_file_may_be_named_by_any_path(path: Any, tmp_path: Path) -> None:
    import json

    (tmp_path / "job.yaml").write_text(json.dumps(SPEC))
    assert load(path(str(tmp_path / "job.yaml"))).spec == load(SPEC).spec


@pytest.mark.parametrize("source", [None, 5, [], numpy.array([1]), 0.5], ids=["none", "int", "list", "array", "float"])
def test_what_is_no_spec_is_said(source: Any) -> None:
    with pytest.raises(UsageError, match="a spec is a file or a mapping, and not "):
        load(source)


def test_no_lines_are_named_that_nobody_has_written() -> None:
    with pytest.raises(SpecError) as caught:
        load({**SPEC, "train": {"epochs": -1}})
    assert str(caught.value.problems[0]).startswith("train.epochs: ")


def test_one_override_may_stand_alone() -> None:
    assert load(SPEC, "train.epochs=7").spec.train.epochs == 7


@pytest.mark.parametrize(
    ("given", "seconds"),
    [(5, 5.0), (numpy.float32(0.5), 0.5), (pandas.Timedelta("2s"), 2.0), (datetime.timedelta(minutes=1), 60.0)],
    ids=["int", "float32", "Timedelta", "timedelta"],
)
def test_a_time_may_be_a_number_or_a_timedelta(given: Any, seconds: float) -> None:
    assert seconds_of(given) == seconds


def test_a_client_is_not_pickled_and_says_when_it_was_closed() -> None:
    client = Client("http://127.0.0.1:9", "ep_verysecret")
    assert "verysecret" not in repr(client)
    with pytest.raises(TypeError, match="make one in each process"):
        pickle.dumps(client)
    client.close()
    client.close()
    with pytest.raises(UsageError, match="this client was closed"):
        client.whoami()


def test_a_state_that_there_is_not() -> None:
    with Client("http://127.0.0.1:9") as client, pytest.raises(UsageError, match="no job can be 'gone'") as caught:
        client.jobs(states="gone")
    assert "SUCCEEDED" in caught.value.hint
