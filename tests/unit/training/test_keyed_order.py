from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from epochal.training import sampler
from epochal.training.keyed_order import KeyedOrder
from epochal.training.sampler import Sampler


@pytest.mark.parametrize("size", [1, 2, 3, 16, 17, 1000, 65_537])
def test_each_sample_comes_once_and_slices_are_parts_of_one_order(size: int) -> None:
    order = KeyedOrder(size, seed=3)
    whole = order[:].tolist()
    assert sorted(whole) == list(range(size))
    assert order[size // 3 : size // 2].tolist() == whole[size // 3 : size // 2]
    assert order[size : size + 5].tolist() == []


def test_each_seed_has_an_order_of_its_own_that_looks_drawn() -> None:
    size = 20_000
    one, other = (KeyedOrder(size, seed)[:] for seed in (0, 1))
    assert (one == other).sum() < 20, "two orders agree in one place on the average"
    for order in (one, other):
        assert abs(np.corrcoef(np.arange(size), order)[0, 1]) < 0.03
        assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.03
        # Neighbours are apart by a third of the size on the average.
        assert np.abs(np.diff(order)).mean() == pytest.approx(size / 3, rel=0.03)


def test_a_billion_samples_take_no_memory_and_workers_share_them() -> None:
    samples = Sampler(size=10**9, global_batch_size=4096, seed=0)
    tracemalloc.start()
    alone = [share.indices for share in samples.shares(0, 1, 244_000, 244_003)]
    together = [[*one.indices, *other.indices] for one, other in zip(
        *(samples.shares(rank, 2, 244_000, 244_003) for rank in range(2)), strict=True)]  # fmt: skip
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert together == alone
    assert len({index for batch in alone for index in batch}) == 3 * 4096
    assert most < 10_000_000


def test_the_last_steps_of_an_epoch_have_what_the_others_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "MOST_HELD", 10)
    samples = Sampler(size=25, global_batch_size=8, seed=3)
    epochs = [
        [index for share in samples.shares(0, 1, first, first + 4) for index in share.indices] for first in (0, 4)
    ]
    assert [sorted(epoch) for epoch in epochs] == [list(range(25))] * 2
    assert epochs[0] != epochs[1]
