"""The report of a sweep, and what it says of trials whose truth is known."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from epochal.sweeps.drawing import axis, drawn
from epochal.sweeps.finding import Finding, Lead, from_record, lead
from epochal.sweeps.importance import importance
from epochal.sweeps.report import html, summary
from epochal.sweeps.trials import Measured, Trial, TrialState


def found(trials: Sequence[Trial], mode: str = "max", full: float = 4.0) -> Finding:
    return Finding("digits", "val/accuracy", mode, full, "epochs", "tpe search, trial scheduler asha", tuple(trials))


def trial(number: int, values: Sequence[float], state: TrialState = TrialState.COMPLETED, **point: Any) -> Trial:
    curve = tuple(Measured(float(length), value) for length, value in enumerate(values, 1))
    return Trial(number, point or {"lr": 10.0**-number}, state, 4.0, curve)


def test_the_best_are_those_with_a_number_that_did_not_fail() -> None:
    trials = [
        trial(0, [0.5, 0.7]), trial(1, [0.9]), trial(2, [0.99], TrialState.FAILED), trial(3, [math.nan]), trial(4, []),
        trial(5, [0.9]),
    ]  # fmt: skip
    assert [one.number for one in found(trials).ranked] == [1, 5, 0]
    assert [one.number for one in found(trials, "min").ranked] == [0, 1, 5]


def test_the_budget_counts_what_was_trained_of_trials_that_began() -> None:
    trials = [trial(0, [0.1] * 4), trial(1, [0.1] * 2), trial(2, [0.1] * 2), trial(3, [], TrialState.WAITING)]
    assert found(trials).used == 8.0
    assert found(trials).saved == pytest.approx(1 - 8 / 12)
    assert found([]).saved == 0.0


def leads(trials: Sequence[Trial]) -> Lead:
    known = lead(found(trials))
    assert known is not None
    return known


def repeated(number: int, lr: float, values: Sequence[float]) -> list[Trial]:
    return [trial(number + seed, [0.1, value], **{"lr": lr, "train.seed": seed}) for seed, value in enumerate(values)]


def test_a_lead_is_held_against_the_noise_of_repeated_trials() -> None:
    clear = leads([*repeated(0, 0.1, [0.90, 0.91, 0.92]), *repeated(10, 0.2, [0.80, 0.81, 0.82])])
    assert (clear.source, clear.is_clear, clear.repeat) == ("repeats", True, ())
    assert clear.noise == pytest.approx(0.01)
    assert clear.gap == pytest.approx(0.1)
    luck = leads([*repeated(0, 0.1, [0.90, 0.80, 0.95]), *repeated(10, 0.2, [0.88, 0.85, 0.90])])
    assert (luck.is_clear, luck.repeat) == (False, (2, 12))
    assert "not larger than what seeds make" in luck.said


def test_a_mean_counts_and_not_the_luckiest_seed() -> None:
    known = leads([*repeated(0, 0.1, [0.99, 0.50, 0.52]), *repeated(10, 0.2, [0.80, 0.81, 0.82])])
    assert (known.winner, known.runner_up) == (12, 0)


def test_without_repeats_the_noise_is_estimated_from_the_curves_and_said_to_be() -> None:
    draw = random.Random(0)
    trials = [
        trial(n, [0.5 + 0.01 * length - 0.001 * n + draw.gauss(0, 0.02) for length in range(40)]) for n in range(10)
    ]
    known = leads(trials)
    assert known.source == "curves"
    assert known.noise == pytest.approx(0.02, rel=0.3), "the trend is not noise"
    assert not known.is_clear
    assert known.winner in known.repeat
    assert "estimated" in known.said
    straight = leads([trial(n, [0.5 + (0.02 - 0.01 * n) * length for length in range(8)]) for n in range(2)])
    assert straight.is_clear
    assert straight.repeat == (0,), "an estimate is to be made sure of"


def test_infinite_values_lead_by_a_number() -> None:
    both = leads([trial(number, [math.inf]) for number in range(3)])
    assert (both.gap, both.is_clear) == (0.0, None)
    assert both.said.startswith("trials 0 and 1 are equal")
    groups = [*repeated(0, 0.1, [math.inf] * 3), *repeated(10, 0.2, [0.80, 0.81, 0.82])]
    one = leads(groups)
    assert (one.gap, one.is_clear) == (math.inf, True)
    assert one.noise == pytest.approx(0.01)
    assert "nan" not in one.said


def test_where_nothing_tells_the_noise_that_is_said() -> None:
    known = leads([trial(0, [0.5]), trial(1, [0.6]), trial(2, [0.4])])
    assert (known.is_clear, known.source, known.repeat) == (None, "", (1, 0, 2))
    assert "not known" in known.said
    assert lead(found([trial(0, [0.5])])) is None


def searched(count: int, seed: int = 0) -> list[Trial]:
    """Only ``lr`` matters, and most of that at its ends."""
    draw = random.Random(seed)
    trials = []
    for number in range(count):
        lr, width = 10 ** draw.uniform(-4, 0), draw.choice([[16], [32], [64]])
        value = 0.9 - 0.1 * (math.log10(lr) + 2) ** 2 + draw.gauss(0, 0.005)
        point = {"lr": lr, "width": width, "dropout": draw.random(), "fixed": 1}
        trials.append(trial(number, [value - 0.1, value] if number % 4 else [value - 0.1], **point))
    return trials


def test_what_matters_is_found_and_how_sure_that_is() -> None:
    important = importance(found(searched(80)))
    assert (important.n, important.length) == (60, 2.0), "the longest length that half of the trials reached"
    first, *others = important.parameters
    assert first.path == "lr"
    assert {one.path for one in others} == {"width", "dropout"}, "what is the same everywhere is not searched"
    assert first.low > max(one.high for one in others)
    assert important.explained > 0.5
    assert importance(found(searched(80))) == important


def test_importance_of_noise_is_not_trusted() -> None:
    draw = random.Random(1)
    noise = [trial(n, [draw.random()], lr=draw.random(), width=draw.random()) for n in range(40)]
    assert importance(found(noise)).explained < 0.2
    assert "do not trust" in summary(found(noise), "j1")["importance_of"]


def test_few_trials_tell_no_importance() -> None:
    assert "there are 8" in importance(found(searched(8))).missing
    assert importance(found([])).parameters == ()


def test_the_same_training_twice_tells_nothing_of_seeds() -> None:
    known = leads([trial(0, [0.9], lr=0.1), trial(1, [0.9], lr=0.1), trial(2, [0.8], lr=0.2)])
    assert (known.winner, known.runner_up, known.source, known.is_clear) == (0, 2, "", None)


def test_importance_is_told_at_the_length_that_enough_trials_have_reached() -> None:
    short = [
        trial(number, [0.1 * number, 0.5] if number < 7 else [0.1 * number], lr=0.1 * number) for number in range(13)
    ]
    important = importance(found(short))
    assert (important.n, important.length, important.missing) == (13, 1.0, "")


def test_what_only_unmeasured_trials_have_is_not_shown() -> None:
    trials = [trial(0, [0.5]), trial(1, [0.5]), trial(2, [], TrialState.RUNNING, **{"lr": 0.1, "train.seed": 1})]
    shown = found(trials)
    assert shown.searched == ["lr"]
    assert leads(trials).said.startswith("trials 0 and 1 are equal;")
    assert summary(shown, "j1")["budget"] == "2 epochs have been trained so far."
    long = replace(shown, unit="steps", trials=(replace(shown.trials[0], curve=(Measured(123_456.0, 1.0),)),))
    assert summary(long, "j1")["budget"].startswith("123,456 steps were trained")
    assert "val/accuracy, the higher the better" in html(shown, "j1")


def test_the_same_point_everywhere_tells_no_importance() -> None:
    same = [trial(number, [0.5 + number / 100], lr=0.1) for number in range(20)]
    assert importance(found(same)).missing == "nothing that was searched differs between them"


@pytest.mark.parametrize(
    ("values", "places"),
    [
        ([1, 2, 3], [0, 0.5, 1]),
        ([1e-4, 1e-3, 1e-2], [0, 0.5, 1]),
        (["sgd", "adamw"], [0.75, 0.25]),
        ([0.1, None], [0.25, 0.75]),
        ([1, None, 2, 3], [0.15, 0, 0.575, 1]),
        ([[16], [32]], [0.25, 0.75]),
        ([True, False], [0.75, 0.25]),
        ([5, 5], [0.5, 0.5]),
        ([1, math.inf, 3, -math.inf], [0, 1, 1, 0]),
    ],
    ids=[
        "linear",
        "logarithmic",
        "names",
        "not given",
        "not given beside numbers",
        "lists",
        "booleans",
        "one value",
        "infinite",
    ],
)
def test_axes_fit_their_values(values: list[Any], places: list[float]) -> None:
    made = axis("x", values)
    assert [made.place(value) for value in values] == pytest.approx(places)


def test_of_many_trials_the_best_are_drawn_and_some_of_the_rest() -> None:
    ranked = [trial(number, [0.5]) for number in range(1000)]
    numbers = [one.number for _, one in drawn(ranked, 100)]
    assert len(numbers) <= 100
    assert set(range(50)) < set(numbers)
    assert max(numbers) > 900
    assert numbers[-1] == 0, "the best lies on top"


class _Elements(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_page_needs_nothing_and_tells_all() -> None:
    trials = [*searched(60), trial(60, [], TrialState.FAILED, lr=1.0)]
    page = _Elements(html(found(trials), "01job"))
    names = [name for name, _ in page.seen]
    assert "script" not in names
    assert not {"src", "href"} & {key for _, attributes in page.seen for key in attributes}
    assert [attributes["aria-label"] for name, attributes in page.seen if name == "svg"] == [
        "Learning curves", "Parallel coordinates", "Importance",
    ]  # fmt: skip
    for words in ("60 COMPLETED, 1 FAILED", "epochal sweep repeat 01job --trial", "fewer than if", "leads trial"):
        assert words in page.words


def test_odd_names_and_values_do_no_harm() -> None:
    odd = [trial(n, [0.1 * n, math.inf if n == 2 else 0.2], **{"<b>&": f"<script>{n}"}) for n in range(3)]
    page = html(found(odd), "j")
    assert "<script>" not in page
    assert "<b>&" not in page
    for few in ([], [trial(0, [math.nan])], [trial(0, [0.5])], [trial(0, [0.5]), trial(1, [0.5])]):
        assert html(found(few), "j").endswith("</html>\n")


def test_a_record_of_the_server_is_a_trial() -> None:
    record = {
        "number": 3, "point": {"lr": 0.1}, "state": "FAILED", "length": 2.0, "until": 4.0, "value": 0.5,
        "reason": "HANG", "message": "rank 1", "run_id": None,
    }  # fmt: skip
    known = from_record(record)
    assert (known.number, known.state, known.why, known.curve) == (3, TrialState.FAILED, "HANG", (Measured(2.0, 0.5),))
    assert from_record({**record, "curve": [[1, 0.4], [2, "nan"]]}).curve[0] == Measured(1.0, 0.4)
    assert from_record({**record, "value": None}).curve == ()
