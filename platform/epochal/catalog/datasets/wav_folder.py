"""A folder of recordings, .wav, each with what is said in a .txt of the same name."""

from __future__ import annotations

import wave
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field as Bounds
from torch import Tensor

from epochal.catalog.data import Batch, DataInfo, LoadedData, SampleSplit
from epochal.catalog.datasets.files import ending, existing, reading
from epochal.catalog.datasets.in_memory import PartitionParams, three_parts
from epochal.catalog.datasets.speech import alphabet, frames_needed, frames_of, log_mel, speech_info, speech_sample
from epochal.catalog.entry import Dataset
from epochal.catalog.understood import Understood
from epochal.errors import EpochalError, some


class WavFolderParams(PartitionParams):
    path: Annotated[str, Bounds(min_length=1)]
    """The folder, relative to the spec's; `a.wav` and `a.txt` at any depth. All of one sample rate."""
    mels: Annotated[int, Bounds(ge=4, le=256)] = 40
    """Bands of a frame; there is one for each 10 ms."""
    longest: Annotated[float, Bounds(gt=0)] = 20.0
    """Seconds; longer recordings are left out, and counted: all are padded to the longest that is kept."""
    lower: bool = True
    """Take what is said in lower case."""


@dataclass(frozen=True)
class Recordings:
    """Reads one by its index. Pickled to the processes that load data."""

    files: tuple[Path, ...]
    said: tuple[tuple[int, ...], ...]
    info: DataInfo
    chosen: tuple[int, ...]
    """Of all files those that are read, by their places."""

    def __call__(self, index: int) -> Batch:
        place = self.chosen[index]
        with reading(self.files[place], "sound"):
            sound, rate = read_wav(self.files[place])
            sample = speech_sample(log_mel(sound, rate, self.info.input.shape[1]), self.said[place], self.info)
        if (needed := int(frames_needed(sample["target"][None], sample["target_length"][None]))) > sample["length"]:
            told = f"its text takes {needed} frames at the least, and the recording has {sample['length']}"
            raise EpochalError(f"{self.files[place]}: {told}", "is it the text of this recording?")
        return {**sample, "recording": torch.tensor(place)}


def build(params: WavFolderParams, folder: Path) -> LoadedData:
    """input: (frames, mels) of which length count; target: (characters,) token ids of which target_length count;
    recording: its place among the files."""
    root = existing(params.path, folder)
    found = ending(root, {".wav"})
    if without := [str(file.relative_to(root)) for file in found if not file.with_suffix(".txt").exists()]:
        raise EpochalError(
            f"{root}: {some(without)} without a .txt that holds what is said", "write it, or take it out"
        )
    lengths = {file: _length(file) for file in found}
    files = [file for file in found if lengths[file][0] <= params.longest * lengths[file][1]]
    if not files:
        raise EpochalError(f"{root} holds no .wav of at most {params.longest:g} s", "is it the right folder?")
    if len(rates := {lengths[file][1] for file in files}) > 1:
        told = f"{root}: found sample rates of {some([f'{rate} Hz' for rate in sorted(rates)])}, expected one"
        raise EpochalError(told, "convert them: sox IN.wav -r 16000 OUT.wav")
    texts = [_text(file.with_suffix(".txt"), params.lower) for file in files]
    known = alphabet(texts)
    said = tuple(tuple(1 + known[1:].index(one) for one in text) for text in texts)
    frames = max(frames_of(*lengths[file]) for file in files)
    names = tuple(str(file.relative_to(root)) for file in files)
    info = speech_info(frames, params.mels, max(map(len, said)), len(known), names)
    train, validation, test = (
        SampleSplit(len(part), Recordings(tuple(files), said, info, tuple(part.tolist())))
        for part in three_parts(len(files), params, None)
    )
    note = f"{len(known) - 1} characters" + (
        f"; {left} longer ones left out" if (left := len(found) - len(files)) else ""
    )
    understood = (Understood(str(root), f"{len(files):,} recordings at {rates.pop()} Hz", note=note),)
    data = LoadedData(train, validation if len(validation) else None, info, _digest(root, files), str(root))
    return replace(data, understood=understood, classes=known, test=test if len(test) else None)


def read_wav(file: Path) -> tuple[Tensor, int]:
    """Samples from -1 to 1, the mean of the channels, and how many there are a second.

    Raises:
        EpochalError, wave.Error: it is no sound in PCM of 8, 16, 24 or 32 bits.
    """
    with wave.open(str(file)) as sound:
        data, width, channels = sound.readframes(sound.getnframes()), sound.getsampwidth(), sound.getnchannels()
        rate = sound.getframerate()
    if width == 1:
        values = np.frombuffer(data, np.uint8).astype(np.float32) - 128  # of 8 bits they are not signed
    elif width == 3:
        padded = np.zeros((len(data) // 3, 4), np.uint8)
        padded[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        values, width = padded.view("<i4")[:, 0].astype(np.float32), 4
    else:
        values = np.frombuffer(data, f"<i{width}").astype(np.float32)
    scaled = values.reshape(-1, channels).mean(axis=1) / 2 ** (8 * width - 1)
    return torch.from_numpy(scaled.astype(np.float32)), rate


def _length(file: Path) -> tuple[int, int]:
    """Samples, and how many there are a second; only its head is read."""
    with reading(file, "sound", "is it PCM? sox IN.wav -e signed -b 16 OUT.wav"), wave.open(str(file)) as sound:
        return sound.getnframes(), sound.getframerate()


def _text(file: Path, lower: bool) -> str:
    with reading(file, "text in UTF-8", "convert it: iconv -f FROM -t UTF-8"):
        text = " ".join(file.read_text(encoding="utf-8").split())
    if not text:
        raise EpochalError(f"{file} is empty, expected what is said", "write it, or take the recording out")
    return text.lower() if lower else text


def _digest(root: Path, files: list[Path]) -> str:
    digest = sha256()
    for file in files:
        digest.update(f"{file.relative_to(root).as_posix()};".encode("utf-8", "surrogateescape"))
        for one in (file, file.with_suffix(".txt")):
            digest.update(sha256(one.read_bytes()).digest())
    return digest.hexdigest()


ENTRY = Dataset(
    summary="Your own recordings, .wav, each with what is said in a .txt of the same name",
    source="https://docs.python.org/3/library/wave.html",
    params=WavFolderParams,
    build=build,
    task="speech",
)
