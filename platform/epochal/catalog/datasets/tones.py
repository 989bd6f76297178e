"""Made-up speech: each letter is a tone, longer or shorter, on noise, with silence between words."""

from __future__ import annotations

from math import pi
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field as Bounds
from torch import Generator, Tensor
from torch.utils.data import default_collate

from epochal.catalog.data import LoadedData
from epochal.catalog.datasets.in_memory import PartitionParams, digest_of, parts
from epochal.catalog.datasets.speech import SPACE, alphabet, log_mel, speech_info, speech_sample
from epochal.catalog.entry import Dataset

RATE = 8000
LETTERS = "abcdefgh"
SECONDS = (0.06, 0.12)
"""The shortest and the longest tone."""


class TonesParams(PartitionParams):
    samples: Annotated[int, Bounds(ge=1, le=100_000)] = 600
    """How many utterances, both parts together."""
    words: Annotated[int, Bounds(ge=1, le=20)] = 2
    """Words of an utterance, each of two to four of eight letters."""
    mels: Annotated[int, Bounds(ge=4, le=128)] = 24
    """Bands of a frame."""
    noise: Annotated[float, Bounds(ge=0)] = 0.05
    """Standard deviation of what is added to the sound, whose tones go from -0.5 to 0.5."""


def build(params: TonesParams, folder: Path) -> LoadedData:
    """input: (frames, mels) of which length count; target: (characters,) token ids of which target_length count."""
    generator = torch.Generator().manual_seed(params.seed)
    known = alphabet([LETTERS])
    said = [_words(params.words, generator) for _ in range(params.samples)]
    frames = [log_mel(_sound(tokens, params.noise, generator), RATE, params.mels) for tokens in said]
    info = speech_info(max(map(len, frames)), params.mels, max(map(len, said)), len(known))
    batch = default_collate([speech_sample(*one, info) for one in zip(frames, said, strict=True)])
    return LoadedData(*parts(batch, params), info, digest_of(batch), "tones", classes=known)


def _words(count: int, generator: Generator) -> list[int]:
    """Token ids."""
    tokens: list[int] = []
    for word in range(count):
        length = int(torch.randint(2, 5, (), generator=generator))
        tokens += [SPACE] * (word > 0) + (torch.randint(0, len(LETTERS), (length,), generator=generator) + 2).tolist()
    return tokens


def _sound(tokens: list[int], noise: float, generator: Generator) -> Tensor:
    """(samples,): tones from 400 Hz, each a quarter higher than the one before it in the alphabet."""
    tones = []
    for token in tokens:
        share = float(torch.rand((), generator=generator))
        time = torch.arange(round((SECONDS[0] + share * (SECONDS[1] - SECONDS[0])) * RATE)) / RATE
        hertz = 400 * 1.25 ** (token - 2)
        tone = torch.sin(2 * pi * hertz * time) * torch.sin(pi * time / time[-1]).clamp(min=0).sqrt()
        tones.append(0.5 * tone if token != SPACE else torch.zeros_like(time))
    sound = torch.cat(tones)
    return sound + noise * torch.randn(sound.shape, generator=generator)


ENTRY = Dataset(
    summary="Made-up speech: each letter is a tone on noise, with what is said",
    source="Epochal's own",
    params=TonesParams,
    build=build,
    task="speech",
)
