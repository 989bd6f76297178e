"""Sound as log-mel frames, and what is said as characters: what the datasets of speech have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

import torch
from torch import Tensor

from epochal.catalog.data import DataInfo, Field

BLANK, SPACE = 0, 1
"""Token ids: what CTC says between characters, and what is between words. Characters come after them."""
WINDOW, HOP = 0.025, 0.010
"""Seconds of sound that a frame is of, and from one to the next."""


def log_mel(sound: Tensor, rate: int, mels: int) -> Tensor:
    """``sound`` (samples,) from -1 to 1 at ``rate`` a second as frames (time, mels), shifted and scaled to mean 0 and
    deviation 1 over all of them. As in Davis and Mermelstein 1980, without the last cosine transform."""
    size, hop = round(WINDOW * rate), round(HOP * rate)
    sound = torch.nn.functional.pad(sound, (0, max(0, size - len(sound))))
    spectrum = torch.stft(sound, size, hop, window=torch.hann_window(size), center=False, return_complex=True)
    frames = (mel_filters(size // 2 + 1, rate, mels) @ spectrum.abs().square() + 1e-6).log().T
    deviation, mean = torch.std_mean(frames, correction=0)
    return (frames - mean) / deviation.clamp(min=1e-3)


def frames_of(samples: int, rate: int) -> int:
    """How many frames ``log_mel`` makes of so many samples."""
    size, hop = round(WINDOW * rate), round(HOP * rate)
    return 1 + (max(samples, size) - size) // hop


@cache
def mel_filters(bins: int, rate: int, mels: int) -> Tensor:
    """Triangles, equally wide on the mel scale, over ``bins`` from 0 to half the ``rate``: (mels, bins)."""
    highest = 2595 * torch.log10(torch.tensor(1 + rate / 2 / 700))
    edges = 700 * (10 ** (torch.linspace(0, 1, mels + 2) * highest / 2595) - 1)
    places = torch.linspace(0, rate / 2, bins)[None]
    low, middle, high = (edges[start : start + mels, None] for start in range(3))
    rising, falling = (places - low) / (middle - low), (high - places) / (high - middle)
    return torch.minimum(rising, falling).clamp(min=0)


def alphabet(texts: Iterable[str]) -> tuple[str, ...]:
    """The characters of all texts, by their token ids; the blank has none."""
    return ("", " ", *sorted({*"".join(texts)} - {" "}))


def speech_info(frames: int, mels: int, characters: int, vocabulary: int, names: tuple[str, ...] = ()) -> DataInfo:
    """Of sound of at most so many ``frames`` in which at most so many ``characters`` are said. Where recordings have
    ``names``, the field ``recording`` is the place of a sample's among them: errors name it."""
    more = {"length": Field((), torch.int64, frames + 1), "target_length": Field((), torch.int64, characters + 1)}
    if names:
        more["recording"] = Field((), torch.int64, len(names), names=names)
    target = Field((characters,), torch.int64, vocabulary)
    return DataInfo(Field((frames, mels)), target, more, inputs=("input", "length"))


def frames_needed(target: Tensor, length: Tensor) -> Tensor:
    """The frames, (batch,), without which CTC has no way to say the ``target`` (batch, characters), of which ``length``
    (batch,) count: one for each character, and one for the blank between two that are the same."""
    places = torch.arange(1, target.shape[1], device=target.device)
    doubled = (target[:, 1:] == target[:, :-1]) & (places < length[:, None])
    return length + doubled.sum(1)


def speech_sample(frames: Tensor, tokens: Sequence[int], info: DataInfo) -> dict[str, Tensor]:
    """Both padded with zeros as ``info`` says, and their lengths."""
    sound, target = torch.zeros(info.input.shape), torch.zeros(info.target.shape, dtype=torch.int64)
    sound[: len(frames)] = frames
    target[: len(tokens)] = torch.tensor(tokens, dtype=torch.int64)
    lengths = {"length": torch.tensor(len(frames)), "target_length": torch.tensor(len(tokens))}
    return {"input": sound, "target": target, **lengths}
