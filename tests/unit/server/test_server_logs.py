"""Logs: what is sent twice is kept once, a gap is refused, and a reader that comes back misses nothing."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochal.errors import UsageError
from epochal.server import log_store
from epochal.server.log_store import LogStore, Stream, cursor_text, positions_of
from epochal.server.routes import following
from epochal.server.routes.following import LogPage, next_page
from epochal.server.schemas import LogFilter
from epochal.server.storage import Storage

JOB = "digits-1rs5mewn"
FIRST = Stream(1, 0)


@pytest.fixture(params=["folder", "fsspec"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> LogStore:
    return LogStore(Storage(str(tmp_path / "kept") if request.param == "folder" else f"memory://{tmp_path}"))


def all_of(store: LogStore, stream: Stream = FIRST) -> bytes:
    log = store.logs(JOB)[stream]
    return store.read(JOB, stream, log, 0, log.end)


def pages(store: LogStore, question: LogFilter, is_over: bool = True) -> list[LogPage]:
    """Until there is nothing more."""
    found = [next_page(store, JOB, question, is_over)]
    while found[-1].chunks:
        again = question.model_copy(update={"cursor": found[-1].cursor})
        found.append(next_page(store, JOB, again, is_over))
    return found


def text_by_stream(found: list[LogPage]) -> dict[tuple[int, int], str]:
    texts: dict[tuple[int, int], str] = {}
    for chunk in (chunk for page in found for chunk in page.chunks):
        key = (chunk["attempt"], chunk["rank"])
        texts[key] = texts.get(key, "") + chunk["text"]
    return texts


def test_what_is_sent_again_is_left_out(store: LogStore) -> None:
    assert store.append(JOB, FIRST, 0, b"one two") == 7
    assert store.append(JOB, FIRST, 4, b"two three") == 13
    assert store.append(JOB, FIRST, 0, b"one") == 13
    assert all_of(store) == b"one two three"


def test_a_gap_keeps_nothing(store: LogStore) -> None:
    store.append(JOB, FIRST, 0, b"one")
    assert store.append(JOB, FIRST, 4, b"two") == 3
    assert all_of(store) == b"one"


def test_many_small_pieces_become_few(store: LogStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_store, "CHUNK", 100)
    monkeypatch.setattr(log_store, "SMALL_PIECES", 8)
    content = bytes(number % 251 for number in range(1_400))
    for start in range(0, len(content), 7):
        store.append(JOB, FIRST, start, content[start : start + 7])
    log = store.logs(JOB)[FIRST]
    assert 14 <= len(log.pieces) <= 40
    assert max(piece.size for piece in log.pieces) <= 100
    assert all_of(store) == content
    assert store.read(JOB, FIRST, log, 95, 250) == content[95:345]
    store.compact(JOB, 2)
    assert store.logs(JOB)[FIRST] == log, "that was another attempt"
    store.compact(JOB, 1)
    assert [(piece.start, piece.size) for piece in store.logs(JOB)[FIRST].pieces] == [(0, 1_400)]
    assert all_of(store) == content


def test_pages_of_one_listing_are_read_with_it(store: LogStore, monkeypatch: pytest.MonkeyPatch) -> None:
    line, listings, sizes = b"x" * 4_095 + b"\n", 0, Storage.sizes
    for number in range(40):
        store.append(JOB, FIRST, number * 4_096, line)

    def counted(storage: Storage, *folder: str) -> dict[tuple[str, ...], int]:
        nonlocal listings
        listings += 1
        return sizes(storage, *folder)

    monkeypatch.setattr(Storage, "sizes", counted)
    found = pages(store, LogFilter(limit_bytes=8_192))
    assert (len(found), listings) == (21, 3), "the first page, and where there seemed to be no more"
    assert text_by_stream(found) == {(1, 0): (line * 40).decode()}


@given(cuts=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 80)), max_size=40))
def test_any_order_of_sending_gives_a_beginning_of_the_log(cuts: list[tuple[int, int]]) -> None:
    content = bytes(number % 251 for number in range(400))
    store = LogStore(Storage(f"memory://{uuid.uuid4().hex}"))
    held = 0
    for start, length in cuts:
        end = store.append(JOB, FIRST, start, content[start : start + length])
        assert end == (max(held, start + length) if start <= held else held)
        held = end
    assert held == 0 or all_of(store) == content[:held]


def test_a_reader_gets_every_rank_and_attempt_once(store: LogStore) -> None:
    wanted = {}
    for stream in (Stream(1, 0), Stream(1, 1), Stream(2, 0)):
        lines = "".join(f"{stream.attempt}.{stream.rank} line {number}\n" for number in range(2_000))
        store.append(JOB, stream, 0, lines.encode())
        wanted[tuple(stream)] = lines
    found = pages(store, LogFilter(limit_bytes=10_000))
    assert text_by_stream(found) == wanted
    assert len(found) > 8
    assert found[-1].at_end


def test_a_chatty_rank_does_not_starve_the_others(store: LogStore) -> None:
    store.append(JOB, Stream(1, 0), 0, b"x" * 500_000)
    store.append(JOB, Stream(1, 1), 0, b"here too\n")
    page = next_page(store, JOB, LogFilter(limit_bytes=20_000), is_over=False)
    assert [chunk["rank"] for chunk in page.chunks] == [0, 1]


def test_a_rank_or_attempt_can_be_chosen(store: LogStore) -> None:
    for stream in (Stream(1, 0), Stream(1, 1), Stream(2, 1)):
        store.append(JOB, stream, 0, b"x")
    assert set(text_by_stream(pages(store, LogFilter(rank=1)))) == {(1, 1), (2, 1)}
    assert set(text_by_stream(pages(store, LogFilter(attempt=1)))) == {(1, 0), (1, 1)}


def test_a_character_is_never_cut(store: LogStore) -> None:
    line = "läuft, 訓練 🙂\n" * 5
    raw = line.encode()
    cursor, seen = "", ""
    for end in range(1, len(raw) + 1):
        store.append(JOB, FIRST, end - 1, raw[end - 1 : end])
        page = next_page(store, JOB, LogFilter(cursor=cursor), is_over=False)
        seen, cursor = seen + "".join(chunk["text"] for chunk in page.chunks), page.cursor
    assert seen == line


def test_bytes_that_are_no_text_are_shown_once_the_job_is_over(store: LogStore) -> None:
    store.append(JOB, FIRST, 0, b"end \xf0\x9f")
    assert text_by_stream(pages(store, LogFilter(), is_over=False)) == {(1, 0): "end "}
    assert text_by_stream(pages(store, LogFilter(), is_over=True)) == {(1, 0): "end \ufffd"}


def test_half_a_character_of_a_dead_attempt_does_not_hide_the_next(store: LogStore) -> None:
    store.append(JOB, FIRST, 0, "né".encode()[:-1])
    store.append(JOB, Stream(2, 0), 0, b"again")
    running = next_page(store, JOB, LogFilter(), is_over=False)
    assert text_by_stream([running]) == {(1, 0): "n", (2, 0): "again"}
    store.append(JOB, FIRST, 2, "né".encode()[-1:])
    late = next_page(store, JOB, LogFilter(cursor=running.cursor), is_over=True)
    assert text_by_stream([late]) == {(1, 0): "é"}
    assert late.at_end


def test_the_longest_cursor_that_is_issued_is_taken() -> None:
    """64 ranks, 20 attempts, and as many bytes of each as fill a disk."""
    cursor = cursor_text({Stream(attempt, rank): 10**12 for attempt in range(1, 21) for rank in range(64)})
    assert LogFilter(cursor=cursor).cursor == cursor


def test_more_logs_than_a_cursor_can_name_are_read_in_parts(store: LogStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LONGEST_CURSOR", 10)
    for rank in range(3):
        store.append(JOB, Stream(1, rank), 0, b"one\n")
    with pytest.raises(UsageError, match="too many logs to be read together: 3") as caught:
        next_page(store, JOB, LogFilter(), is_over=False)
    assert "name a rank" in caught.value.hint
    assert len(next_page(store, JOB, LogFilter(), is_over=True).chunks) == 3, "nothing more is to be asked"
    assert len(next_page(store, JOB, LogFilter(rank=2), is_over=False).chunks) == 1


def test_tail_gives_the_last_lines_of_the_newest_attempt(store: LogStore) -> None:
    store.append(JOB, Stream(1, 0), 0, b"old\n" * 10)
    store.append(JOB, Stream(2, 0), 0, "".join(f"line {number}\n" for number in range(50_000)).encode())
    store.append(JOB, Stream(2, 1), 0, b"a\nb\nc")
    found = pages(store, LogFilter(tail=2))
    assert text_by_stream(found) == {(2, 0): "line 49998\nline 49999\n", (2, 1): "b\nc"}


def test_a_progress_bar_is_one_line_of_the_tail(store: LogStore) -> None:
    store.append(JOB, FIRST, 0, b"first\n" + b"".join(b"\rstep %d" % step for step in range(100)) + b"\r\nlast\n")
    (text,) = text_by_stream(pages(store, LogFilter(tail=2))).values()
    assert text.startswith("\rstep 0\r")
    assert text.endswith("\rstep 99\r\nlast\n")


def test_tail_of_nothing_waits_for_what_comes(store: LogStore) -> None:
    store.append(JOB, FIRST, 0, b"before\n")
    page = next_page(store, JOB, LogFilter(tail=0), is_over=False)
    store.append(JOB, FIRST, 7, b"after\n")
    assert text_by_stream(pages(store, LogFilter(cursor=page.cursor))) == {(1, 0): "after\n"}


def test_cursor_is_read_as_it_was_written() -> None:
    positions = {Stream(2, 11): 5, Stream(1, 0): 10**12}
    assert dict(positions_of(cursor_text(positions))) == positions
    assert dict(positions_of("")) == {}
