"""The order of very many samples, computed where it is asked for: no permutation is held in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from epochal.training import seeding

_ROUNDS = 8
_Words = NDArray[np.uint64]


@dataclass(frozen=True)
class KeyedOrder:
    """A permutation of 0 to ``size`` - 1 that the ``seed`` chooses; slices of it are (length,) of int64.

    A Feistel network (Luby and Rackoff, 1988) permutes the numbers of an even number of bits, of which there are fewer
    than four times ``size``; one that falls outside is permuted again until it does not (cycle walking: Black and
    Rogaway, "Ciphers with Arbitrary Finite Domains", 2002).

    >>> sorted(KeyedOrder(5, seed=0)[:].tolist())
    [0, 1, 2, 3, 4]
    """

    size: int
    seed: int

    def __getitem__(self, where: slice) -> NDArray[np.int64]:
        values = np.arange(*where.indices(self.size), dtype=np.uint64)
        outside = np.ones(len(values), dtype=bool)
        while outside.any():
            values[outside] = self._permuted(values[outside])
            outside = values >= self.size
        return values.astype(np.int64)

    def _permuted(self, values: _Words) -> _Words:
        half = np.uint64(max(1, -(-(self.size - 1).bit_length() // 2)))
        low = np.uint64((1 << int(half)) - 1)
        left, right = values >> half, values & low
        for number in range(_ROUNDS):
            key = np.uint64(seeding.derive(self.seed, "round", number))
            left, right = right, left ^ (_mixed(right ^ key) & low)
        return (left << half) | right


def _mixed(words: _Words) -> _Words:
    """Each of whose bits depends on all bits of the word: the finalizer of SplitMix64 (Steele and others, 2014)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
