"""The spool: cheap, survives kills, and one curve whatever was resumed."""

from __future__ import annotations

import math
import os
import statistics
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epochal.tracking.desired_run import clean_key
from epochal.tracking.metric_spool import MetricSpool, Point, last_steps, read_lines, segments, whole_size


def points(folder: Path) -> list[Point]:
    return [point for path in segments(folder) for line in read_lines(path) for point in line.points]


def curve(folder: Path, name: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in points(folder) if point.name == name]


def test_what_is_logged_is_read(tmp_path: Path) -> None:
    with_numbers = {"train/loss": 0.1 + 0.2, "count": 3, "tiny": 5e-324, "large": 1.7e308}
    writer = MetricSpool(tmp_path, "attempt-1-rank-0")
    writer.log(7, with_numbers, timestamp=1700000000.1239)
    writer.close()
    assert points(tmp_path) == [Point(name, float(value), 1700000000123, 7) for name, value in with_numbers.items()]


def test_values_that_are_no_finite_numbers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Scalar:
        def __float__(self) -> float:
            return 2.5

    writer = MetricSpool(tmp_path, "a")
    writer.log(0, {"nan": math.nan, "up": math.inf, "down": -math.inf, "scalar": Scalar(), "text": "x"})  # type: ignore[dict-item]
    writer.log(1, {"text": "y"})  # type: ignore[dict-item]
    writer.close()
    values = {point.name: point.value for point in points(tmp_path)}
    assert math.isnan(values.pop("nan"))
    assert values == {"up": math.inf, "down": -math.inf, "scalar": 2.5}
    assert len(caplog.records) == 1
    assert "'text' is not a number" in caplog.text


def test_names_are_what_mlflow_takes(tmp_path: Path) -> None:
    writer = MetricSpool(tmp_path, "a")
    writer.log(0, {'top"k\n(5)': 1.0, "x" * 300: 2.0})
    writer.close()
    assert [point.name for point in points(tmp_path)] == ["top_k__5_", clean_key("x" * 300)]


def test_of_names_that_become_one_it_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writer = MetricSpool(tmp_path, "a")
    for step in range(2):
        writer.log(step, {"x" * 300 + "a": 1.0, "x" * 300 + "b": 2.0, "top@5": 3.0, "top#5": 4.0})
    writer.close()
    assert sorted(point.value for point in points(tmp_path)) == [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]
    (told,) = caplog.messages
    assert told == "metrics 'top@5' and 'top#5' have one name in MLflow, 'top_5': of each step the first is kept"


def test_metrics_reach_the_file_without_a_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("epochal.tracking.metric_spool.FLUSH_SECONDS", 0.0)
    writer = MetricSpool(tmp_path, "a")
    writer.log(0, {"loss": 1.0})
    assert curve(tmp_path, "loss") == [(0, 1.0)]
    writer.close()


def test_half_a_line_is_never_read_and_dropped_on_reopening(tmp_path: Path) -> None:
    writer = MetricSpool(tmp_path, "a")
    writer.log(0, {"loss": 1.0})
    writer.flush()
    whole = writer.path.stat().st_size
    with writer.path.open("ab") as file:
        file.write(b'{"s":1,"t":17000000')
    assert whole_size(writer.path) == whole
    assert curve(tmp_path, "loss") == [(0, 1.0)]
    again = MetricSpool(tmp_path, "a")
    again.log(1, {"loss": 2.0})
    again.close()
    assert curve(tmp_path, "loss") == [(0, 1.0), (1, 2.0)]


@pytest.mark.parametrize("damage", [b"\0" * 50, b'{"last":{"loss":9', b"[1,2]", b'{"last":3}', b"\xff\xfe"])
def test_a_damaged_line_costs_only_itself(tmp_path: Path, damage: bytes) -> None:
    writer = MetricSpool(tmp_path, "a")
    writer.log(0, {"loss": 1.0})
    writer.flush()
    with writer.path.open("ab") as file:
        file.write(damage + b"\n")
    writer.log(1, {"loss": 2.0})
    writer.flush()
    assert curve(tmp_path, "loss") == [(0, 1.0), (1, 2.0)]
    assert last_steps(tmp_path) == {"loss": 1}


def test_a_resumed_attempt_leaves_one_curve(tmp_path: Path) -> None:
    first = MetricSpool(tmp_path, "attempt-1-rank-0")
    for step in range(75):
        first.log(step, {"train/loss": 1.0 / (step + 1)})
    first.log(49, {"val/loss": 0.5})
    first.flush()  # killed here; the checkpoint was at step 50
    second = MetricSpool(tmp_path, "attempt-2-rank-0")
    for step in range(50, 100):
        second.log(step, {"train/loss": 1.0 / (step + 1)})
    second.log(49, {"val/loss": 0.5})
    second.log(99, {"val/loss": 0.4})
    second.close()
    assert curve(tmp_path, "train/loss") == [(step, 1.0 / (step + 1)) for step in range(100)]
    assert curve(tmp_path, "val/loss") == [(49, 0.5), (99, 0.4)]


def test_samples_of_the_machine_may_repeat_a_step(tmp_path: Path) -> None:
    writer = MetricSpool(tmp_path, "node", repeat=True)
    for value in (1.0, 2.0):
        writer.log(5, {"cpu": value})
    writer.close()
    assert curve(tmp_path, "cpu") == [(5, 1.0), (5, 2.0)]


def test_a_name_that_mlflow_does_not_take_leaves_one_curve_too(tmp_path: Path) -> None:
    killed = MetricSpool(tmp_path, "attempt-1-rank-0")
    for step in range(4):
        killed.log(step, {"val/mAP@0.5": float(step)})
    killed.flush()
    resumed = MetricSpool(tmp_path, "attempt-2-rank-0")
    for step in range(2, 6):
        resumed.log(step, {"val/mAP@0.5": float(step)})
    resumed.close()
    assert curve(tmp_path, "val/mAP_0.5") == [(step, float(step)) for step in range(6)]


def test_a_long_segment_is_resumed_without_reading_all_of_it(tmp_path: Path) -> None:
    writer = MetricSpool(tmp_path, "a")
    writer.log(0, {"only/once": 1.0})
    for step in range(100_000):
        writer.log(step, {"train/loss": 0.5, "train/accuracy": 0.5})
    writer.flush()
    size = writer.path.stat().st_size
    opened = os.open(writer.path, os.O_RDONLY)
    start = time.thread_time()
    last = last_steps(tmp_path)
    seconds = time.thread_time() - start
    os.close(opened)
    print(f"last steps of a segment of {size / 1e6:.1f} MB: {seconds * 1e3:.2f} ms")
    assert last == {"only/once": 0, "train/loss": 99_999, "train/accuracy": 99_999}
    assert seconds < 0.5


def test_reading_goes_on_from_an_offset(tmp_path: Path) -> None:
    writer = MetricSpool(tmp_path, "a")
    for step in range(10):
        writer.log(step, {"loss": float(step)})
    writer.flush()
    lines = list(read_lines(writer.path))
    rest = list(read_lines(writer.path, lines[3].end))
    assert [line.points[0].step for line in rest] == list(range(4, 10))
    assert rest[-1].end == writer.path.stat().st_size


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    attempts=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 30)), min_size=1, max_size=5), cut=st.integers(0, 40)
)
def test_any_history_of_attempts_gives_rising_steps(
    tmp_path_factory: pytest.TempPathFactory, attempts: list[tuple[int, int]], cut: int
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    for number, (start, length) in enumerate(attempts):
        writer = MetricSpool(folder, f"attempt-{number:02}-rank-0")
        for step in range(start, start + length):
            writer.log(step, {"loss": float(step)})
        writer.flush()
        os.truncate(writer.path, max(0, writer.path.stat().st_size - cut))
    steps = [step for step, _ in curve(folder, "loss")]
    assert steps == sorted(set(steps))


def test_a_full_disk_loses_nothing_in_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writer = MetricSpool(tmp_path, "a")
    file = writer._file
    with open("/dev/full", "ab", buffering=0) as writer._file:
        for step in range(3):
            writer.log(step, {"loss": float(step)})
            writer.flush()
        with pytest.raises(OSError, match="No space left on device"):
            writer.sync()
    writer._file = file
    writer.close()
    assert curve(tmp_path, "loss") == [(0, 0.0), (1, 1.0), (2, 2.0)]
    assert caplog.text.count("cannot be written") == 1


def test_a_disk_that_stays_full_does_not_pass_for_one_that_took_it_all(tmp_path: Path) -> None:
    writer = MetricSpool(tmp_path, "a")
    writer._file.close()
    writer._file = open("/dev/full", "ab", buffering=0)  # noqa: SIM115 - the spool closes it
    writer.log(0, {"loss": 1.0})
    with pytest.raises(OSError, match=r"No space left on device.*a\.jsonl"):
        writer.close()


@pytest.mark.parametrize("count", [1, 5])
def test_cost_of_a_call(tmp_path: Path, count: int) -> None:
    writer = MetricSpool(tmp_path, "a")
    spent = []
    for step in range(1000):
        metrics = {f"train/metric_{index}": step * 1.000123 + index for index in range(count)}
        start = time.perf_counter_ns()
        writer.log(step, metrics)
        spent.append((time.perf_counter_ns() - start) / 1000)
    writer.close()
    median = statistics.median(spent)
    print(f"log() of {count} metrics: median {median:.2f} us, {median / count:.2f} us a metric")
    assert len(curve(tmp_path, "train/metric_0")) == 1000
