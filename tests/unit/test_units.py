"""Durations, sizes and intervals: read, printed and read again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from epochal.units import Bytes, Duration, Interval


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("1h30m", 5400), ("2d", 172800), ("250ms", 0.25), ("1.5h", 5400), ("0s", 0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert Duration.parse(text).seconds == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [("1B", 1), ("2KB", 2000), ("2KiB", 2048), ("1.5GB", 1_500_000_000), ("2 GiB", 2**31), ("1048576TiB", 2**60)],
)
def test_sizes(text: str, size: int) -> None:
    assert Bytes.parse(text) == size


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("1ep", 1, "epochs"),
        ("0.5epochs", 0.5, "epochs"),
        ("1 epoch", 1, "epochs"),
        ("500steps", 500, "steps"),
        ("1step", 1, "steps"),
        ("10m", 600, "seconds"),
    ],
)
def test_intervals(text: str, value: float, unit: str) -> None:
    assert Interval.parse(text) == Interval(value, unit)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Duration, "5"),
        (Duration, "5 s"),
        (Duration, "-5s"),
        (Duration, "s"),
        (Duration, "1e3s"),
        (Duration, "36501d"),
        (Duration, "5s\n"),
        (Bytes, "5"),
        (Bytes, "5gb"),
        (Bytes, "2097152TiB"),
        (Bytes, "-1B"),
        (Interval, "0ep"),
        (Interval, "0s"),
        (Interval, "1.5steps"),
        (Interval, "1"),
        (Interval, "9999999999999steps"),
        (Interval, "every epoch"),
    ],
)
def test_what_has_no_unit_or_no_sense_is_refused(kind: type[Duration | Bytes | Interval], text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        kind.parse(text)


@pytest.mark.parametrize("value", [5, 1.5, None, True, [], "5 parsecs"])
@pytest.mark.parametrize("kind", [Duration, Bytes, Interval])
def test_models_take_text_alone(kind: type, value: object) -> None:
    with pytest.raises(ValidationError, match="expected"):
        TypeAdapter(kind).validate_python(value)


@given(st.floats(0, 36_500 * 86_400.0))
def test_a_printed_duration_reads_as_itself(seconds: float) -> None:
    duration = Duration(round(seconds, 3))
    assert Duration.parse(str(duration)) == duration


@given(st.integers(0, 2**60))
def test_a_printed_size_reads_as_itself(size: int) -> None:
    assert Bytes.parse(str(Bytes(size))) == size


@given(
    st.one_of(st.integers(1, 10**12).map(str), st.decimals(min_value="0.000001", max_value=10**6, places=6).map(str))
)
def test_a_printed_interval_reads_as_itself(number: str) -> None:
    for text in (f"{number}ep", f"{number.partition('.')[0]}steps"):
        if not text.startswith("0steps"):
            interval = Interval.parse(text)
            assert Interval.parse(str(interval)) == interval


def test_an_interval_in_steps() -> None:
    assert Interval(0.5, "epochs").steps(23) == 12
    assert Interval(0.001, "epochs").steps(23) == 1
    assert Interval(40, "steps").steps(23) == 40
    assert Interval(60, "seconds").steps(23) is None


def test_sizes_for_reading() -> None:
    assert Bytes(1_400_000_000).human() == "1.3 GiB"
    assert Bytes(12).human() == "12 B"
    assert Bytes(1020 * 2**20).human() == "1,020 MiB"
    assert str(Bytes(3 * 2**20)) == "3MiB"
