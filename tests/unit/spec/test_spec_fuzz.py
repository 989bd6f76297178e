"""Whatever is given for a spec: a spec or its problems, never a traceback."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st
from spec_texts import FULL, SMALL

from epochal.catalog.index import check
from epochal.errors import SpecError
from epochal.spec import JobSpec, LoadedSpec, load_text
from epochal.spec.fields import known_paths
from epochal.spec.source import parse

FULL_TREE = parse(FULL, "job.yaml")[0].plain()
PATHS = sorted(known_paths())

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20),
    st.sampled_from(["1ep", "5steps", "2GiB", "1h", "val/loss", "max", "cnn", "digits", "pbt", "asha", "int"]),
)  # fmt: skip
keys = st.one_of(st.sampled_from([path.rpartition(".")[2] for path in PATHS] + PATHS), st.text(max_size=8))
trees = st.recursive(
    scalars,
    lambda below: st.one_of(st.lists(below, max_size=4), st.dictionaries(keys, below, max_size=5)),
    max_leaves=20,
)


def examined(text: str | bytes, overrides: Sequence[str] = ()) -> None:
    result = loaded_or_refused(text, overrides)
    if isinstance(result, SpecError):
        assert result.problems
        assert str(result)
        for problem in result.problems:
            assert problem.message
            assert problem.line is not None or problem.origin or not problem.path
    else:
        stored = json.loads(json.dumps(result.spec.model_dump(mode="json"), allow_nan=False))
        assert JobSpec.from_stored(stored) == result.spec


def loaded_or_refused(text: str | bytes, overrides: Sequence[str]) -> LoadedSpec | SpecError:
    try:
        return load_text(text, Path("/jobs/job.yaml"), overrides, checks=[check])
    except SpecError as error:
        return error


@given(st.one_of(st.text(), st.binary()))
def test_any_text(text: str | bytes) -> None:
    examined(text)


@given(st.text(alphabet="abx01 \n\t:-[]{}&*#?|>'\"!%@,.~<=", max_size=60))
def test_text_made_of_yaml_s_own_characters(text: str) -> None:
    examined(text)


@given(st.dictionaries(keys, trees, max_size=8))
def test_any_tree(tree: dict[str, Any]) -> None:
    examined(yaml.safe_dump(tree, allow_unicode=True))


@given(st.lists(st.tuples(st.sampled_from(PATHS), trees), min_size=1, max_size=4))
def test_a_good_spec_with_some_values_replaced(changes: list[tuple[str, Any]]) -> None:
    tree = json.loads(json.dumps(FULL_TREE))
    for path, value in changes:
        put(tree, path.split("."), value)
    examined(yaml.safe_dump(tree, allow_unicode=True))


@given(st.dictionaries(st.one_of(st.sampled_from(PATHS), keys), trees, max_size=4), trees, trees)
def test_any_sweep(space: dict[str, Any], search: Any, trial_scheduler: Any) -> None:
    sweep = {"space": space, "search": search, "trial_scheduler": trial_scheduler}
    examined(yaml.safe_dump(FULL_TREE | {"sweep": sweep}, allow_unicode=True))


@given(st.integers(0, len(FULL)), st.integers(0, 12), st.text(max_size=6))
def test_a_good_spec_with_some_characters_replaced(start: int, length: int, text: str) -> None:
    examined(FULL[:start] + text + FULL[start + length :])


@given(
    st.lists(st.one_of(st.text(), st.tuples(st.sampled_from(PATHS), st.text(max_size=12)).map("=".join)), max_size=4)
)
def test_any_overrides(overrides: list[str]) -> None:
    examined(SMALL, overrides)
    examined(FULL, overrides)


def put(tree: Any, steps: list[str], value: Any) -> None:
    for step in steps[:-1]:
        if not isinstance(tree.get(step), dict):
            tree[step] = {}
        tree = tree[step]
    tree[steps[-1]] = value
