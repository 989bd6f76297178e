"""Pairs of token sequences, padded: what goes in, and what is to come out of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from epochal.catalog.data import Batch, DataInfo, Field

PADDING, BEGIN, END = 0, 1, 2
"""Token ids in every vocabulary; its own begin after them."""
SPECIAL = ("<padding>", "<begin>", "<end>")


def token_pairs(sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> Batch:
    """As a model that translates takes them, which is taught with the target moved by one: ``decoder_input``.

    ``target`` and ``decoder_input``: (pairs, time), the one ends in ``END``, the other begins with ``BEGIN``.
    ``length`` and ``target_length``, (pairs,), are without the padding.
    """
    source, length = padded(sources)
    target, target_length = padded([[*one, END] for one in targets])
    shifted, _ = padded([[BEGIN, *one] for one in targets])
    return {
        "input": source,
        "target": target,
        "decoder_input": shifted,
        "length": length,
        "target_length": target_length,
    }


def pair_info(batch: Batch, vocabulary: int, target_vocabulary: int) -> DataInfo:
    """What such pairs are."""
    time, target_time = batch["input"].shape[1], batch["target"].shape[1]
    shown = Field((target_time,), torch.int64, target_vocabulary)
    more = {
        "decoder_input": shown,
        "length": Field((), torch.int64, time + 1),
        "target_length": Field((), torch.int64, target_time + 1),
    }
    return DataInfo(Field((time,), torch.int64, vocabulary), shown, more, ("input", "decoder_input", "length"))


def padded(sequences: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """(sequences, longest) filled up with ``PADDING``, and their lengths (sequences,)."""
    lengths = torch.tensor([len(one) for one in sequences])
    rows = torch.full((len(sequences), int(lengths.max())), PADDING)
    for row, one in zip(rows, sequences, strict=True):
        row[: len(one)] = torch.tensor(one, dtype=torch.int64)
    return rows, lengths
