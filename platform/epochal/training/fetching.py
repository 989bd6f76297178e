"""Samples of a split as one batch, without those that cannot be read where they are to be left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from epochal.catalog.data import Batch, Field, LoadedData, Split
from epochal.errors import EpochalError
from epochal.redaction import named
from epochal.spec.job import JobSpec


class Fetched(NamedTuple):
    """A batch of ``size`` samples; each of the ``problems`` names one that cannot be used."""

    batch: Batch
    size: int
    problems: list[str]


def some_of(split: Split, indices: Sequence[int], data: LoadedData, spec: JobSpec) -> Batch:
    """The samples at ``indices``, to be looked at outside of a training; where ``data.on_error`` is skip, others in the
    place of those that cannot be read."""
    skip = spec.data.on_error == "skip"
    fetched = Fetch(split, data.info.fields, spec.data.max_errors + 1 if skip else 0)(indices, len(indices))
    if fetched.size < len(indices):
        raise EpochalError(f"too many samples cannot be read: {fetched.problems[-1]}", "mend or remove them")
    return fetched.batch


@dataclass(frozen=True)
class Fetch:
    """Fetches from ``split``. What cannot be used is raised where ``tries`` is 0. Where it is 1, it is left out; where
    it is more, one of as many samples after it takes its place, so that a batch is as large as it is to be. ``fields``
    say what a sample has to be like.
    """

    split: Split
    fields: Mapping[str, Field]
    tries: int

    def __call__(self, indices: Sequence[int], size: int) -> Fetched:
        """The first ``size`` of the samples at ``indices``."""
        problems: list[str] = []
        try:
            batch = self.split.fetch(indices)
            is_whole = not (self.tries and self._unlike(batch))
        except MemoryError:
            raise
        except Exception:
            if not self.tries:
                raise
            is_whole = False
        if not is_whole:
            batch, problems = self._one_by_one(indices)
        if size < len(indices):
            batch = {name: tensor[:size] for name, tensor in batch.items()}
        return Fetched(batch, len(next(iter(batch.values()))), problems)

    def _one_by_one(self, indices: Sequence[int]) -> tuple[Batch, list[str]]:
        good: list[Batch] = []
        problems: list[str] = []
        for index in indices:
            for further in range(min(self.tries, len(self.split))):
                sample, problem = self._single((index + further) % len(self.split))
                if sample is not None:
                    good.append(sample)
                    break
                problems.append(problem)
        if not good:
            return {name: torch.empty((0, *one.shape), dtype=one.dtype) for name, one in self.fields.items()}, problems
        return {name: torch.cat([sample[name] for sample in good]) for name in good[0]}, problems

    def _single(self, index: int) -> tuple[Batch | None, str]:
        """A batch of one sample, or what is wrong with it."""
        try:
            sample = self.split.fetch([index])
        except MemoryError:
            raise
        except EpochalError as error:
            return None, error.message
        except Exception as error:
            return None, f"sample {index} cannot be read: {named(error)}"
        told = self._unlike(sample)
        return (None, f"sample {index}: {told}") if told else (sample, "")

    def _unlike(self, batch: Batch) -> str:
        """Which field is not of the shape that a sample's has to have; empty where all are."""
        for name, one in self.fields.items():
            if name not in batch or tuple(batch[name].shape[1:]) != one.shape:
                found = f"the shape {tuple(batch[name].shape[1:])}" if name in batch else "no value"
                return f"the {name} has {found}, expected the shape {one.shape}"
        return ""
