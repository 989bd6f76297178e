"""``index.json`` says what the entries say."""

from __future__ import annotations

from epochal.catalog.generate import REGISTRIES, index
from epochal.catalog.index import FILE, KINDS, entries, entry
from epochal.catalog.schema_model import model_of


def test_the_index_is_current() -> None:
    assert FILE.read_text(encoding="utf-8") == index(), "run `make index`"


def test_every_schema_reads_back_as_a_model_with_the_same_defaults() -> None:
    for kind in KINDS:
        for name, original in REGISTRIES[kind].built_in():
            rebuilt = model_of(name, entry(kind, name).params)
            ours = {key: field.get_default() for key, field in original.params.model_fields.items()}
            assert set(rebuilt.model_fields) == set(ours)
            for key, field in rebuilt.model_fields.items():
                assert field.is_required() == original.params.model_fields[key].is_required()


def test_everything_is_described() -> None:
    for kind in KINDS:
        for described in entries(kind):
            assert described.summary
            assert described.source
            lacking = [key for key, field in described.params["properties"].items() if not field.get("description")]
            assert lacking == [], f"{kind} {described.name}"
