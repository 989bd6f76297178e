"""Any input field as a sequence of vectors, for the architectures that read sequences."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn

from epochal.catalog.data import DataInfo, Field
from epochal.errors import EpochalError


class Frames(nn.Module):
    """Real values as a sequence of frames.

    (batch, features) becomes one value a step, (batch, time, features) stays, and of (batch, channels, height, width)
    each row of pixels is a step.
    """

    def __init__(self, field: Field) -> None:
        super().__init__()
        if len(field.shape) not in (1, 2, 3):
            raise EpochalError(
                f"an input of shape {field.shape} is not a sequence", "1 to 3 dimensions can be read as one"
            )
        self.rank = len(field.shape)
        self.length = field.shape[1] if self.rank == 3 else field.shape[0]
        self.width = prod(field.shape) // self.length

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, *field.shape); returns (batch, length, width)."""
        if self.rank == 1:
            return x.unsqueeze(-1)
        return x.transpose(1, 2).flatten(2) if self.rank == 3 else x


class Tokens(nn.Module):
    """Token ids as a sequence of learned vectors."""

    def __init__(self, field: Field, width: int) -> None:
        super().__init__()
        if field.classes is None or len(field.shape) != 1:
            raise EpochalError(
                f"whole numbers of shape {field.shape} are no sequence of token ids",
                "token ids have the shape (time,) and a vocabulary size, Field.classes",
            )
        self.length, self.width = field.shape[0], width
        self.embedding = nn.Embedding(field.classes, width)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, time), whole numbers; returns (batch, time, width)."""
        vectors: Tensor = self.embedding(x)
        return vectors


class Projected(nn.Module):
    """Any input field as a sequence of vectors of one width, by a learned projection or an embedding."""

    def __init__(self, field: Field, width: int) -> None:
        super().__init__()
        self.steps = sequence(field, width)
        self.length = self.steps.length
        tokens = isinstance(self.steps, Tokens)
        self.projection: nn.Module = nn.Identity() if tokens else nn.Linear(self.steps.width, width)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, *field.shape); returns (batch, length, width)."""
        vectors: Tensor = self.projection(self.steps(x))
        return vectors


def sequence(field: Field, embedding: int) -> Frames | Tokens:
    """The module that reads ``field`` as a sequence; token ids are embedded with the width ``embedding``."""
    return Frames(field) if field.dtype.is_floating_point else Tokens(field, embedding)


def learned_positions(length: int, width: int) -> nn.Parameter:
    """(length, width), to be added to a sequence of vectors."""
    return nn.Parameter(torch.randn(length, width) * 0.02)


def refuse_padding(architecture: str, padding: int | None, info: DataInfo) -> None:
    """
    Raises:
        EpochalError: ``padding`` is no token of the input.
    """
    if padding is not None and padding >= (info.input.classes or 0):
        known = f"there are {info.input.classes} kinds of them" if info.input.classes else "the input has no token ids"
        raise EpochalError(f"{architecture}: padding is the token {padding}, and {known}", "remove it, or correct it")


def not_padding(x: Tensor, padding: int | None) -> Tensor | None:
    """Which of the token ids ``x`` (batch, time) count, (batch, time); None where all do.

    The first always does: attention to nothing, and a mean of nothing, are not numbers.
    """
    return None if padding is None else (x != padding) | (torch.arange(x.shape[1], device=x.device) == 0)


def own_record(record: Tensor) -> tuple[Tensor, Tensor]:
    """For rows of several records, ``record`` (batch, time) being whose each token is, one after another.

    Returns each token's place in its record (batch, time), and what is of the same record (batch, 1, time, time).
    """
    places = torch.arange(record.shape[1], device=record.device)
    begins = torch.ones_like(record, dtype=torch.bool)
    begins[:, 1:] = record[:, 1:] != record[:, :-1]
    return places - torch.where(begins, places, 0).cummax(1).values, (record[:, :, None] == record[:, None])[:, None]


def token_ids(architecture: str, info: DataInfo) -> tuple[int, int]:
    """Length and vocabulary of an input of token ids.

    Raises:
        EpochalError: the input is something else.
    """
    field = info.input
    if field.classes is None or len(field.shape) != 1:
        told = f"{architecture} takes token ids (time,), and this dataset's input is {field.shape} of {field.dtype}"
        raise EpochalError(told, "use the dataset text, tokens, or one of your own with a vocabulary: Field.classes")
    return field.shape[0], field.classes
