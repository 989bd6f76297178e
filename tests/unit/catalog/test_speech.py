"""Speech: sound that is read, padding that counts for nothing, and what is written down."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from epochal.catalog.architectures.ctc import CtcParams
from epochal.catalog.architectures.ctc import build as build_ctc
from epochal.catalog.build import build_task, load_data
from epochal.catalog.data import LoadedData
from epochal.catalog.datasets.speech import alphabet, frames_of, log_mel, mel_filters, speech_info, speech_sample
from epochal.catalog.datasets.wav_folder import read_wav
from epochal.catalog.tasks.speech import greedy
from epochal.errors import EpochalError, SpecError
from epochal.spec.section import Component


def record(file: Path, width: int = 2, channels: int = 1, rate: int = 8000, seconds: float = 0.2) -> None:
    """A tone of 1 kHz as loud as may be, on the first channel."""
    time = np.arange(round(rate * seconds)) / rate
    tone = np.round(np.sin(2 * np.pi * 1000 * time) * (2 ** (8 * width - 1) - 1)).astype(np.int64)
    samples = np.zeros((len(tone), channels), np.int64)
    samples[:, 0] = tone
    if width == 1:
        samples += 128
    data = samples.astype("<i8").reshape(-1, 1).view(np.uint8)[:, :width]
    with wave.open(str(file), "wb") as sound:
        sound.setparams((channels, width, rate, 0, "NONE", ""))
        sound.writeframes(data.tobytes())


@pytest.mark.parametrize(("width", "channels"), [(1, 1), (2, 1), (2, 2), (3, 1), (4, 2)])
def test_pcm_of_every_width_is_the_same_sound(tmp_path: Path, width: int, channels: int) -> None:
    record(tmp_path / "a.wav", width, channels)
    sound, rate = read_wav(tmp_path / "a.wav")
    expected = torch.sin(2 * torch.pi * 1000 * torch.arange(1600) / 8000) / channels
    assert rate == 8000
    torch.testing.assert_close(sound, expected, rtol=0, atol=0.01)


def test_a_tone_is_in_the_band_that_holds_it() -> None:
    sound = torch.sin(2 * torch.pi * 1000 * torch.arange(4000) / 8000)
    frames = log_mel(sound, 8000, 20)
    assert frames.shape == (frames_of(4000, 8000), 20)
    filters = mel_filters(101, 8000, 20)
    assert frames.mean(0).argmax() == filters[:, 25].argmax()  # bins are 40 Hz apart
    assert (filters.amax(1) > 0).all()
    assert frames_of(10, 8000) == len(log_mel(torch.zeros(10), 8000, 20)) == 1


def folder(path: Path, **params: object) -> LoadedData:
    return load_data(Component(name="wav-folder", params={"path": ".", "mels": 8, **params}), path)


def test_recordings_are_read_with_what_is_said(tmp_path: Path) -> None:
    for name, text, seconds in (("a", "Ab  b\n", 0.2), ("b", "b", 0.4), ("c", "a", 3.0)):
        record(tmp_path / f"{name}.wav", seconds=seconds)
        (tmp_path / f"{name}.txt").write_text(text)
    data = folder(tmp_path, validation=0, longest=1.0)
    assert data.classes == ("", " ", "a", "b")
    batch = data.train.fetch([0, 1])
    assert batch["target"].tolist() == [[2, 3, 1, 3], [3, 0, 0, 0]]
    assert batch["length"].tolist() == [frames_of(1600, 8000), frames_of(3200, 8000)]
    assert "1 longer ones left out" in data.understood[0].note


def test_what_is_no_recording_is_named(tmp_path: Path) -> None:
    record(tmp_path / "a.wav")
    with pytest.raises(SpecError, match=r"a\.wav without a \.txt"):
        folder(tmp_path)
    (tmp_path / "a.txt").write_text(" \n")
    with pytest.raises(SpecError, match=r"a\.txt is empty"):
        folder(tmp_path)
    (tmp_path / "a.txt").write_text("a")
    record(tmp_path / "b.wav", rate=16000)
    (tmp_path / "b.txt").write_text("b")
    with pytest.raises(SpecError, match="8000 Hz, 16000 Hz, expected one"):
        folder(tmp_path)
    (tmp_path / "b.wav").write_bytes(b"OggS")
    with pytest.raises(SpecError, match=r"b\.wav cannot be read as sound"):
        folder(tmp_path)


def test_a_text_too_long_for_its_recording_is_named(tmp_path: Path) -> None:
    record(tmp_path / "a.wav", seconds=0.2)
    (tmp_path / "a.txt").write_text("ab")
    record(tmp_path / "b.wav", seconds=0.1)  # 8 frames, one each 10 ms
    (tmp_path / "b.txt").write_text("abababbb")  # 8 characters, and a blank between the b's
    data = folder(tmp_path, validation=0)
    assert data.train.fetch([0])["recording"].tolist() == [0]
    with pytest.raises(EpochalError, match=r"b\.wav: its text takes 10 frames at the least, and the recording has 8"):
        data.train.fetch([1])


def test_a_text_too_long_for_the_frames_a_model_makes_is_named(tmp_path: Path) -> None:
    for name, text in (("a", "a"), ("b", "abab"), ("c", "abb")):
        record(tmp_path / f"{name}.wav", seconds=0.08)  # 6 frames, of which the model makes 3
        (tmp_path / f"{name}.txt").write_text(text)
    data = folder(tmp_path, validation=0)
    task = build_task(Component(name="speech"), Component(name="own:data"), data.info)
    model = build_ctc(CtcParams(), data.info)
    assert task.loss(model, data.train.fetch([0])).total.isfinite()
    for row, said in (
        (1, r"b\.wav has 6 frames, of which the model makes 3, and CTC needs 4 for its 4"),
        (2, r"c\.wav.* 4 for its 3"),
    ):
        with pytest.raises(EpochalError, match=said):
            task.loss(model, data.train.fetch([0, row]))


def test_repeats_are_one_and_blanks_are_none() -> None:
    frames = torch.nn.functional.one_hot(torch.tensor([0, 2, 2, 0, 2, 3, 3, 1, 0]), 4).float()
    assert greedy(frames) == [2, 2, 3, 1]


def test_errors_are_over_what_is_said() -> None:
    info = speech_info(8, 4, 6, len(alphabet(["ab"])))
    task = build_task(Component(name="speech"), Component(name="own:data"), info)
    samples = [speech_sample(torch.ones(8, 4), tokens, info) for tokens in ([2, 3, 1, 2], [3])]
    batch = {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}
    written = torch.tensor([[2, 3, 1, 3, 0, 0, 0, 0], [3, 0, 2, 0, 0, 0, 0, 0]])
    outputs = {"logits": torch.nn.functional.one_hot(written, 4).float(), "lengths": torch.tensor([8, 2])}
    metrics = task.metrics()
    task.update(metrics, outputs, batch)  # type: ignore[attr-defined]
    # "ab b" in place of "ab a", and "b": what comes after the second one's length does not count.
    assert {name: float(value) for name, value in metrics.compute().items()} == pytest.approx(
        {"cer": 1 / 5, "wer": 1 / 3}
    )


def test_padding_is_not_heard() -> None:
    torch.manual_seed(0)
    short, long = speech_info(12, 4, 3, 5), speech_info(20, 4, 3, 5)
    model = build_ctc(CtcParams(), short).eval()
    sound = torch.randn(9, 4)
    made = [model(speech_sample(sound, [2], info)["input"][None], torch.tensor([9]))[:, :5] for info in (short, long)]
    torch.testing.assert_close(*made)
