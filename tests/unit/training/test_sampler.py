from __future__ import annotations

from itertools import product

from epochal.training.sampler import Position, Sampler, micro_batches, part


def test_parts_cover_everything_once_and_evenly() -> None:
    for size in range(12):
        for world_size in range(1, 6):
            parts = [range(*part(size, rank, world_size)) for rank in range(world_size)]
            assert [index for one in parts for index in one] == list(range(size))
            sizes = [len(one) for one in parts]
            assert sizes == sorted(sizes, reverse=True)
            assert sizes[0] - sizes[-1] <= 1


def test_global_batches_do_not_depend_on_the_number_of_workers() -> None:
    sampler = Sampler(size=25, global_batch_size=8, seed=3)
    alone = [share.indices for share in sampler.shares(0, 1, 0, 8)]
    for world_size in (2, 3, 5):
        together = zip(*(sampler.shares(rank, world_size, 0, 8) for rank in range(world_size)), strict=True)
        assert [[index for share in shares for index in share.indices] for shares in together] == alone


def test_an_epoch_sees_every_sample_once_in_an_order_of_its_own() -> None:
    sampler = Sampler(size=25, global_batch_size=8, seed=3)
    first, second = (
        [index for share in sampler.shares(0, 1, start, start + 4) for index in share.indices] for start in (0, 4)
    )
    assert sorted(first) == sorted(second) == list(range(25))
    assert first != second
    assert first != Sampler(25, 8, seed=4).order(0)[:].tolist()


def test_a_last_batch_that_is_smaller_can_be_left_out() -> None:
    sampler = Sampler(size=25, global_batch_size=8, seed=3, drop_last=True)
    epochs = [[share.indices for share in sampler.shares(0, 1, start, start + 3)] for start in (0, 3)]
    assert [[len(batch) for batch in epoch] for epoch in epochs] == [[8, 8, 8]] * 2
    left_out = [set(range(25)) - {index for batch in epoch for index in batch} for epoch in epochs]
    assert all(len(one) == 1 for one in left_out)
    assert left_out[0] != left_out[1]
    assert Sampler(5, 8, seed=3, drop_last=True).steps_per_epoch == 1, "a batch of all there is"


def test_shares_go_on_from_any_step() -> None:
    sampler = Sampler(size=25, global_batch_size=8, seed=3)
    whole = list(sampler.shares(1, 3, 0, 11))
    for step in range(11):
        assert list(sampler.shares(1, 3, step, 11)) == whole[step:]


def test_a_share_says_where_it_is_and_how_large_the_global_batch_is() -> None:
    shares = list(Sampler(size=25, global_batch_size=8, seed=3).shares(2, 3, 2, 5))
    assert [share.position for share in shares] == [Position(0, 2), Position(0, 3), Position(1, 0)]
    assert [share.global_size for share in shares] == [8, 1, 8]
    assert [len(share.indices) for share in shares] == [2, 0, 2]


def test_micro_batches_are_as_many_as_the_largest_share_needs() -> None:
    assert micro_batches(8, 3, None) == 1
    assert micro_batches(8, 3, 3) == 1
    assert micro_batches(8, 3, 2) == 2
    assert micro_batches(1, 3, 2) == 1
    assert micro_batches(64, 1, 10) == 7


def test_the_fewest_samples_of_a_forward_pass_are_those_that_a_step_of_an_epoch_has() -> None:
    for size, micro, world_size, drop_last in product(range(4, 14), (None, 1, 2, 3), (1, 2, 3), (False, True)):
        sampler = Sampler(size, global_batch_size=4, seed=0, drop_last=drop_last)
        ranks = [list(sampler.shares(rank, world_size, 0, sampler.steps_per_epoch)) for rank in range(world_size)]
        passes, alone = [], []
        for shares in zip(*ranks, strict=True):
            count = micro_batches(shares[0].global_size, world_size, micro)
            for index in range(count):
                low_high = [part(len(share.indices), index, count) for share in shares]
                passes.append(sum(high - low for low, high in low_high))
                alone += [high - low for low, high in low_high]
        assert sampler.fewest(world_size, micro) == min(passes)
        assert sampler.fewest(world_size, micro, together=False) == min(alone)
