"""Records of differing length in rows of tokens: packed they train as one by one, with less padding."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from epochal.catalog.build import build_model, build_task, load_data
from epochal.catalog.data import Batch, LoadedData
from epochal.catalog.datasets.text_records import END, packed
from epochal.errors import SpecError
from epochal.spec.section import Component

TEXTS = ["to be", "or", "not to be, that is the question", "a", "whether 'tis nobler", "or", "in the mind to suffer"]


def _written(folder: Path) -> str:
    (folder / "lines.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return "lines.jsonl"


def _loaded(folder: Path, **params: Any) -> LoadedData:
    given = {"path": _written(folder), "length": 24, "validation": 0, **params}
    return load_data(Component(name="text-records", params=given), folder)


def _all(data: LoadedData) -> Batch:
    return data.train.fetch(range(len(data.train)))


def _by_record(losses: Tensor, batch: Batch) -> dict[tuple[int, ...], list[float]]:
    found = defaultdict(list)
    for row, numbers in enumerate(batch["record"]):
        for number in range(1, int(numbers.max()) + 1):
            own = numbers == number
            found[(*batch["input"][row, own].tolist(), int(batch["target"][row, own][-1]))] = losses[row, own].tolist()
    return found


@pytest.mark.parametrize("name", ["gpt", "llama"])
def test_the_loss_of_each_token_is_that_of_its_record_alone(tmp_path: Path, name: str) -> None:
    each, totals = [], []
    for pack in (True, False):
        data = _loaded(tmp_path, pack=pack)
        batch = _all(data)
        torch.manual_seed(0)
        model = build_model(Component(name=name, params={"size": "nano"}), data.info)
        for parameter in model.parameters():  # far from where all tokens are alike
            torch.nn.init.normal_(parameter, std=0.2)
        outputs = data.info.call(model, batch)
        each.append(_by_record(F.cross_entropy(outputs.transpose(1, 2), batch["target"], reduction="none"), batch))
        task = build_task(None, Component(name="text-records"), data.info)
        loss = task.loss(model, batch)
        loss.total.backward()
        metrics = task.metrics()
        task.update(metrics, loss.outputs, batch)
        gradient = torch.cat([one.grad.flatten() for one in model.parameters() if one.grad is not None])
        totals.append([loss.total, loss.weight, *metrics.compute().values(), gradient])
    assert len(each[0]) == 7, "a long record is two pieces, and two are the same"
    assert each[0].keys() == each[1].keys()
    for record, losses in each[0].items():
        assert losses == pytest.approx(each[1][record], abs=1e-5)
    for one, other in zip(*totals, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)


def test_rows_hold_every_record_once_and_padding_is_told(tmp_path: Path) -> None:
    data = _loaded(tmp_path)
    batch, names = _all(data), data.classes
    texts = []
    for row, numbers in enumerate(batch["record"]):
        texts += [
            "".join(names[token] for token in (*batch["input"][row, own].tolist(), int(batch["target"][row, own][-1])))
            for own in (numbers == number for number in range(1, int(numbers.max()) + 1))
        ]
    long = TEXTS[2] + END
    expected = [text + END for text in TEXTS if text != TEXTS[2]] + [long[:25], long[24:]]
    assert sorted(texts) == sorted(expected)
    tokens, rows = sum(len(text) for text in TEXTS), len(batch["input"])
    note = data.understood[0].note
    assert "7 records, 1 of them cut into rows of 24" in note
    assert (
        f"padding is {1 - tokens / (8 * 24):.1%} in 8 rows, one for each, packed {1 - tokens / (rows * 24):.1%}" in note
    )
    assert rows < 8


def test_a_row_is_never_longer_than_its_room() -> None:
    sizes = torch.randint(1, 33, (500,), generator=torch.Generator().manual_seed(0)).tolist()
    rows = packed(sizes, 32)
    assert sorted(index for row in rows for index in row) == list(range(500))
    assert max(sum(sizes[index] for index in row) for row in rows) <= 32
    assert len(rows) < 1.05 * sum(sizes) / 32
    assert packed([3, 1, 2], 0) == [[0], [2], [1]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"body": "a"}\n', r"line 1.: expected a text in the field 'text', found the fields body"),
        ('{"text": "a"}\n[1]\n', r"line 2.: expected a text in the field 'text', found list"),
        ('{"text": "a"}\n\n{"text"\n', r"line 3.: .*each line is a JSON object"),
        ('{"text": "a"}\n', "has 1 records with text"),
    ],
    ids=["field", "list", "json", "one"],
)
def test_a_line_that_is_no_record_is_told(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "rows.jsonl").write_text(text)
    with pytest.raises(SpecError, match=said):
        load_data(Component(name="text-records", params={"path": "rows.jsonl"}), tmp_path)


def test_nothing_but_the_end_of_a_line_ends_a_record(tmp_path: Path) -> None:
    texts = ["one\u2028and\x85the same", "two"]
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"text": text}, ensure_ascii=False) + "\r\n" for text in texts)
    )
    data = load_data(Component(name="text-records", params={"path": "a.jsonl", "validation": 0}), tmp_path)
    assert "2 records" in data.understood[0].note
    assert "\u2028" in data.classes
