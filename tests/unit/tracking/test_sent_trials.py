"""What MLflow has of a sweep's trials, as several readers of its file see it."""

from __future__ import annotations

from pathlib import Path

from epochal.tracking.sent_trials import SentTrial, SweepTrials


def test_a_file_that_was_written_anew_is_read_from_its_beginning(tmp_path: Path) -> None:
    """The tracker compacts it while the conductor, which links runs to trials, follows it."""
    writes, follows = SweepTrials(tmp_path), SweepTrials(tmp_path)
    (tmp_path / "trials").mkdir()
    writes.note(0, SentTrial("run-0"), "parent")
    path = tmp_path / "trials" / "sent.jsonl"
    size, changes = 0, 0
    while path.stat().st_size > size:
        size, changes = path.stat().st_size, changes + 1
        writes.note(0, SentTrial("run-0", changes), "parent")
        follows.read_sent()
    assert changes > 1000
    writes.note(1, SentTrial("run-1"), "parent")
    follows.read_sent()
    assert follows.run_ids == {0: "run-0", 1: "run-1"}
