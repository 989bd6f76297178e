from __future__ import annotations

import click
import pytest

from epochal.cli.retention import retention
from epochal.settings import DEFAULT_RETENTION, Retention


def test_kinds_have_ages_and_the_rest_its_default() -> None:
    assert retention(()) == DEFAULT_RETENTION
    assert retention(("logs=7d", "checkpoints=forever")) == Retention(checkpoints=None, logs=7 * 86_400)


@pytest.mark.parametrize("given", ["logs", "logs=7", "log=7d", "=7d"])
def test_what_is_no_age_is_refused(given: str) -> None:
    with pytest.raises(click.BadParameter, match="expected"):
        retention((given,))


def test_a_job_is_known_as_long_as_anything_of_it_is_kept() -> None:
    assert retention(("jobs=1d", "logs=2d")).jobs_at_least == 90 * 86_400
    assert retention(("jobs=1000d",)).jobs_at_least == 1000 * 86_400
    assert retention(("checkpoints=forever",)).jobs_at_least is None
