"""Pairs of sequences: what does not count, what is made without the target, and what a model may not see."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from epochal.catalog.architectures.seq2seq import Seq2SeqParams, build
from epochal.catalog.datasets.dates import DatesParams
from epochal.catalog.datasets.dates import build as dates
from epochal.catalog.datasets.token_pairs import pair_info, token_pairs
from epochal.catalog.tasks.translation import Translation, TranslationParams

SOURCES, TARGETS = [[3, 4], [5, 6, 7, 8], [4]], [[3, 4, 5], [6], [4, 4]]
BATCH = token_pairs(SOURCES, TARGETS)
INFO = pair_info(BATCH, 9, 7)


class Remembers(nn.Module):
    """Knows the target of each source, and says the next token of it after the ones shown."""

    def forward(self, source: Tensor, shown: Tensor, length: Tensor) -> Tensor:
        logits = torch.zeros(*shown.shape, 7)
        for row, tokens in enumerate(source.tolist()):
            target = [*TARGETS[SOURCES.index(tokens[: length[row]])], 2]
            for place in range(len(target)):
                right = shown[row, 1 : place + 1].tolist() == target[:place]
                logits[row, place, target[place] if right else 0] = 9.0
        return logits


def test_pairs_are_padded_and_moved_by_one() -> None:
    assert BATCH["target"].tolist() == [[3, 4, 5, 2], [6, 2, 0, 0], [4, 4, 2, 0]]
    assert BATCH["decoder_input"].tolist() == [[1, 3, 4, 5], [1, 6, 0, 0], [1, 4, 4, 0]]
    assert (BATCH["length"].tolist(), BATCH["target_length"].tolist()) == ([2, 4, 1], [4, 2, 3])


def test_what_a_model_makes_by_itself_is_measured() -> None:
    task = Translation(TranslationParams(metrics=["bleu", "sequence_accuracy", "token_accuracy"]), INFO)
    loss = task.loss(Remembers().eval(), BATCH)
    metrics = task.metrics()
    task.update(metrics, loss.outputs, BATCH)
    assert {name: float(value) for name, value in metrics.compute().items()} == pytest.approx(
        {"bleu": 0.0, "sequence_accuracy": 1.0, "token_accuracy": 1.0}  # no sentence has four words for BLEU
    )
    made = loss.outputs["tokens"].clone()
    made[0, 1] = 6
    again = task.metrics()
    task.update(again, {**loss.outputs, "tokens": made}, BATCH)
    assert float(again["sequence_accuracy"].compute()) == pytest.approx(2 / 3)


def test_bleu_is_that_of_the_words_before_the_end() -> None:
    task = Translation(TranslationParams(), INFO)
    batch = token_pairs([[3]], [[3, 4, 5, 6, 3, 4]])
    made = torch.tensor([[3, 4, 5, 6, 3, 2, 6]])
    metrics = task.metrics()
    task.update(metrics, {"tokens": made}, batch)
    assert float(metrics["bleu"].compute()) == pytest.approx(2.718281828 ** (1 - 6 / 5))  # all n-grams right, too short


def test_padding_counts_for_nothing() -> None:
    task = Translation(TranslationParams(), INFO)
    torch.manual_seed(0)
    model = build(Seq2SeqParams(), INFO).train()
    loss = task.loss(model, BATCH)
    assert int(loss.counts_for(3)) == 9
    other = {**BATCH, "target": BATCH["target"].clone(), "input": BATCH["input"].clone()}
    other["target"][1, 2:], other["input"][0, 2:] = 5, 8
    torch.testing.assert_close(task.loss(model, other).total, loss.total)
    assert "tokens" not in loss.outputs  # training makes none: they cost a pass each


def test_a_place_sees_nothing_of_what_comes_after_it() -> None:
    torch.manual_seed(0)
    model = build(Seq2SeqParams(), INFO).eval()
    before = model(BATCH["input"], BATCH["decoder_input"], BATCH["length"])
    changed = BATCH["decoder_input"].clone()
    changed[:, 2] = 6
    after = model(BATCH["input"], changed, BATCH["length"])
    torch.testing.assert_close(after[:, :2], before[:, :2])
    assert not torch.allclose(after[:, 2], before[:, 2])


def test_dates_are_the_same_day(tmp_path: Path) -> None:
    data = dates(DatesParams(samples=50), tmp_path)
    assert data.validation is not None
    assert (len(data.train), len(data.validation)) == (40, 10)
    assert all(one.note.removeprefix("target: ")[:4] in one.name for one in data.understood)
