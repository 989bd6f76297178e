"""YAML to a tree: the dialect, the places and the limits."""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from spec_texts import SMALL, problem, problems

from epochal.errors import Problem, SpecError
from epochal.spec.point import spec_at
from epochal.spec.source import MAX_BYTES, MAX_DEPTH, MAX_NODES, parse, parse_value, read
from epochal.spec.tree import Place


def plain(text: str | bytes) -> Any:
    return parse(text, "job.yaml")[0].plain()


def refused(text: str | bytes) -> Problem:
    with pytest.raises(SpecError) as caught:
        parse(text, "job.yaml")
    return caught.value.problems[-1]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-3", 1e-3),
        ("1e5", 1e5),
        ("-2.5E+2", -250.0),
        (".5", 0.5),
        ("3.", 3.0),
        ("1_000", 1000),
        ("010", 10),
        ("+7", 7),
        ("0x1f", 31),
        ("0o17", 15),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("no", "no"),
        ("off", "off"),
        ("yes", "yes"),
        ("y", "y"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("+.", "+."),
        ("1e", "1e"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("!!str 1", "1"),
        ("9" * 50, "9" * 50),
    ],
)
def test_scalars_are_read_by_the_core_schema(written: str, value: Any) -> None:
    found = plain(f"a: {written}")["a"]
    assert found == value
    assert type(found) is type(value)


def test_keys_are_text_as_written() -> None:
    assert plain("on: 1\n5: 2\nnull: 3\n1e3: 4") == {"on": 1, "5": 2, "null": 3, "1e3": 4}


def test_merge_keys_give_way_to_the_mapping_s_own() -> None:
    text = "base: &base {x: 1, y: 2}\none: {<<: *base, y: 3}\ntwo: {<<: [{x: 7}, *base], z: 9}\n"
    assert plain(text) == {"base": {"x": 1, "y": 2}, "one": {"x": 1, "y": 3}, "two": {"x": 7, "y": 2, "z": 9}}


def test_every_value_and_key_knows_its_place() -> None:
    tree, _ = parse("äö: {ü: [1, x]}\ntrain:\n  lr: 2\n", "job.yaml")
    assert tree.place_of(("äö", "ü", 1)) == Place(1, 13)
    assert tree.place_of(("äö", "ü"), of_key=True) == Place(1, 6)
    assert tree.place_of(("train", "lr")) == Place(3, 7)
    assert tree.place_of(("train", "missing")) == Place(2, 1)


def test_a_key_given_twice_names_both_lines() -> None:
    found = problems(SMALL.replace("train: {epochs: 5}", "train:\n  epochs: 5\n  epochs: 6"))
    assert [(one.path, one.line, one.column) for one in found] == [("train.epochs", 7, 3)]
    assert "line 6" in found[0].message
    assert "line 7" in found[0].message


def test_every_key_given_twice_is_told() -> None:
    found = problems(SMALL + "name: other\nmodel: {name: mlp, name: cnn}\n")
    assert [(one.path, one.line) for one in found] == [("name", 6), ("model", 7), ("model.name", 7)]


def alias_bomb(levels: int = 9, width: int = 9) -> str:
    lines = [f"a0: &a0 [{', '.join(['x'] * width)}]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, levels)]
    return "\n".join(lines)


def test_an_alias_bomb_is_refused_before_it_goes_off() -> None:
    parse("warm: up", "job.yaml")
    started = time.process_time()
    found = refused(alias_bomb())
    took = time.process_time() - started
    assert "counting what aliases repeat" in found.message
    assert took < 0.05


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [" + "1," * MAX_NODES + "]", "values"),
        ("a: &a " + "x" * 200_000 + "\nb: [*a, *a, *a, *a, *a, *a]", "characters"),
        ("a: " + "[" * MAX_DEPTH + "]" * MAX_DEPTH, "levels deep"),
        ("a: &a " + "[" * 20 + "]" * 20 + "\nb: " + "[" * 20 + "*a" + "]" * 20, "levels deep"),
        ("\n".join("  " * i + f"k{i}:" for i in range(40)), "levels deep"),
        ("x" * (MAX_BYTES + 1), "MiB"),
        ("a: &a [*a]", "inside what it stands for"),
        ("a: *b", "no anchor above"),
        ("a: &a x\n*a : 1", "expected text as the key"),
        ("? [1]\n: 2", "expected text as the key"),
        ("a: !!python/object/apply:os.system [ls]", "a spec is plain data"),
        ("a: !!binary aGk=", "a spec is plain data"),
        ("<<: 3", "to merge"),
        ("a: 1\n---\nb: 2", "one document"),
        ("", "empty"),
        ("# nothing\n", "empty"),
        ("- 1", "expected `key: value` lines, got a list of 1"),
        ("text", "expected `key: value` lines, got 'text'"),
        ('a: "\\0"', "NUL"),
        ("a: \x07", "not allowed"),
        (b"a: \xff", "UTF-8"),
        ("a: \ud800", "UTF-8"),
    ],
)
def test_what_is_not_a_spec_is_refused(text: str | bytes, told: str) -> None:
    assert told in refused(text).message


def test_just_within_the_limits_is_read() -> None:
    assert plain("a: " + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1))
    assert len(plain("a: [" + "1," * (MAX_NODES - 10) + "]")["a"]) == MAX_NODES - 10


@pytest.mark.parametrize("text", ["[" * 10**6, "{" * 10**6, "- " * 500_000, "? " * 500_000, "a: [" + "[]," * 300_000])
def test_hostile_nesting_is_refused_at_once(text: str) -> None:
    started = time.process_time()
    refused(text)
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("text", "line", "column", "told"),
    [
        ("a: [1,\n b: 2", 3, 1, "expected ',' or ']'"),
        ("a:\n\t- b", 2, 1, "not tabs"),
        ("a: 1\n b: 2", 2, 3, "not YAML"),
        ("a: 'x", 1, 6, "end of stream"),
        ("é: \x01", 1, 4, "not allowed"),
        (b"\xef\xbb\xbfa: 1\nb: \xc3\xa9\xff", 2, 5, "UTF-8"),
    ],
)
def test_syntax_errors_have_a_place(text: str | bytes, line: int, column: int, told: str) -> None:
    found = refused(text)
    assert (found.line, found.column) == (line, column)
    assert told in found.message


def test_numbers_that_are_not_finite_are_refused() -> None:
    found = problem(SMALL.replace("{name: cnn}", "{name: cnn, params: {x: .inf}}"))
    assert (found.path, found.line, found.message) == ("model.params.x", 3, "expected a finite number, got .inf")
    assert "1e999" in problem(SMALL.replace("{epochs: 5}", "{epochs: 5, clip_grad_norm: 1e999}")).message


def test_a_byte_order_mark_is_no_part_of_the_first_key() -> None:
    assert plain(b"\xef\xbb\xbfname: x") == {"name": "x"}


def test_reading_a_file_that_is_not_there(tmp_path: Path) -> None:
    for source in (tmp_path / "missing.yaml", tmp_path, "nul\0"):
        with pytest.raises(SpecError, match="cannot be read"):
            read(source)


def test_a_dash_is_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"a: 1")))
    assert read("-") == b"a: 1"


@pytest.mark.parametrize(
    "text", ["\U0001f600", "a\\\U0001f600", "\U0010ffff\U00010000", r"\\ud83d\\ude00", "\u2028\x85\x07"]
)
def test_json_is_read_whatever_it_escapes(text: str) -> None:
    """It has a character beyond 16 bits in two halves, which YAML's parser refuses."""
    node, _ = parse(json.dumps({"description": text, text: [text]}), "spec.json")
    assert node.plain() == {"description": text, text: [text]}
    assert parse_value(json.dumps(text)).plain() == text


def test_half_a_character_is_refused() -> None:
    with pytest.raises(SpecError, match="this is not YAML"):
        parse(r'{"a": "\ud83d\ude00", "b": "\ud83d"}', "spec.json")


def test_the_spec_of_a_point_has_any_text() -> None:
    document = {"version": 1, "name": "one", "description": "\U0001f600", "model": {"name": "mlp"},
                "data": {"name": "digits"}, "train": {"epochs": 1}}  # fmt: skip
    spec = spec_at(document, {"data.params.prompt": "\U0001f680"})
    assert (spec.description, spec.data.params["prompt"]) == ("\U0001f600", "\U0001f680")
