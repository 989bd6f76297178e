"""Series: windows that know nothing of what they are validated on, and what a forecast is measured by."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from epochal.catalog.architectures.forecaster import ForecasterParams, build
from epochal.catalog.build import build_task, load_data
from epochal.catalog.data import DataInfo, Field, LoadedData
from epochal.errors import SpecError
from epochal.spec.section import Component

ROWS = [(step, shop, step * (1 + (shop == "b")), step % 4) for step in range(30) for shop in "ab"]


def table(folder: Path, rows: list[tuple[object, ...]], **params: object) -> LoadedData:
    (folder / "t.csv").write_text("\n".join(["day,shop,sold,sun", *(",".join(map(str, row)) for row in rows)]))
    given = {"path": "t.csv", "target": "sold", "series": "shop", "time": "day", "window": 6, "horizon": 3}
    return load_data(Component(name="series", params={**given, **params}), folder)


def test_windows_of_each_series_are_in_order_and_apart(tmp_path: Path) -> None:
    shuffled = [ROWS[index] for index in torch.randperm(60, generator=torch.Generator().manual_seed(0)).tolist()]
    data, same = table(tmp_path, shuffled, features=["sun"]), table(tmp_path, ROWS, features=["sun"])
    assert data.info == DataInfo(Field((6, 2)), Field((3,)))
    assert data.validation is not None
    assert (len(data.train), len(data.validation)) == (2 * (22 - 4 - 2), 2 * 4)
    batch = data.train.fetch(range(len(data.train)))
    assert torch.equal(batch["input"], same.train.fetch(range(len(data.train)))["input"])
    known = torch.arange(24, dtype=torch.float64)  # of the 30 steps: what training windows hold
    scaled = ((torch.arange(30) - known.mean()) / known.std(correction=0)).float()
    torch.testing.assert_close(batch["input"][0, :, 0], scaled[:6])
    torch.testing.assert_close(batch["target"][0], scaled[6:9])
    torch.testing.assert_close(batch["target"][16], scaled[6:9])  # the other shop sells twice as much: the same, scaled
    held = data.validation.fetch([0])
    torch.testing.assert_close(held["target"][0], scaled[24:27])  # no training window has these


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((7, "a", "", 1), "'sold', row 2.*found nothing"),
        ((7, "a", "x", 1), "found 'x', expected a number"),
        ((7, "a", "inf", 1), "found 'inf'"),
    ],
    ids=["missing", "text", "infinite"],
)
def test_what_is_no_series_is_refused(tmp_path: Path, row: tuple[object, ...], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        table(tmp_path, [row, *ROWS])
    with pytest.raises(SpecError, match="22 windows of 6 \\+ 3 steps leave none"):
        table(tmp_path, ROWS, validation=0.95)


@pytest.mark.parametrize(
    ("times", "found"),
    [
        (["01.02.2024", "02.01.2024"], "01.02.2024"),
        (["1/31/24"], "1/31/24"),
        (["2024-10-01", "2024-9-1"], "2024-9-1"),
        (["Jan 31, 2024"], "Jan 31, 2024"),
        (["9:30", "10:30"], "9:30"),
        (["100", "20", "later"], "100"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_times_that_letters_do_not_put_in_order_are_refused(tmp_path: Path, times: list[str], found: str) -> None:
    rows: list[tuple[object, ...]] = [(f'"{time}"', "a", 1, 1) for time in times]
    with pytest.raises(SpecError, match=f"'day'.*found {found!r}, which the order of letters"):
        table(tmp_path, rows)


@pytest.mark.parametrize(
    "form", ["2024-01-{:02}", "2024-01-{:02}T09:30:00+01:00", "20240101T{:02}", "2024-W{:02}", "t{:03}"]
)
def test_times_in_iso_8601_are_put_in_order(tmp_path: Path, form: str) -> None:
    rows: list[tuple[object, ...]] = [(form.format(step), "a", step, 0) for step in range(30, 0, -1)]
    assert table(tmp_path, rows).train.fetch([0])["input"][0, :, 0].diff().min() > 0


def test_what_never_changes_before_validation_is_not_blown_up_then(tmp_path: Path) -> None:
    """The deviation of equal numbers is what rounding leaves of it."""
    rows: list[tuple[object, ...]] = [(step, "a", step, 1000000.1 if step < 280 else 1000000.5) for step in range(290)]
    data = table(tmp_path, rows, features=["sun"], validation=0.05)
    assert data.validation is not None
    held = data.validation.fetch(range(len(data.validation)))["input"][..., 1]
    assert 0 < held.max() < 1


def test_mase_is_the_error_over_that_of_saying_what_was() -> None:
    info = DataInfo(Field((6, 1)), Field((2,)))
    task = build_task(Component(name="forecasting", params={"season": 2}), Component(name="own:data"), info)
    window = torch.tensor([[0.0, 1, 2, 3, 4, 5], [0, 0, 0, 0, 0, 0], [1, 9, 2, 9, 3, 9]])[..., None]
    target = torch.tensor([[6.0, 7], [0, 0], [4, 9]])
    batch, outputs = {"input": window, "target": target}, target + torch.tensor([1.0, 3.0])
    metrics = task.metrics()
    task.update(metrics, outputs, batch)  # type: ignore[attr-defined]
    # Errors are 2 each; two steps back the first window is off by 2, the third by 1 or 0, the second never.
    assert float(metrics["mase"].compute()) == pytest.approx((2 + 2) / (2 + 0.5))
    assert float(metrics["mae"].compute()) == pytest.approx(2)


@pytest.mark.parametrize("cell", ["lstm", "transformer"])
def test_a_level_never_seen_moves_the_forecast_along(cell: str) -> None:
    torch.manual_seed(0)
    model = build(ForecasterParams(cell=cell), DataInfo(Field((12, 2)), Field((5,)))).eval()
    x = torch.randn(3, 12, 2)
    torch.testing.assert_close(model(x + 100.0), model(x) + 100.0, rtol=1e-4, atol=1e-3)
