"""Every YAML in ``jobs/`` loads, checks and plans, and the catalog is shown by examples."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from epochal.catalog.index import check, entries
from epochal.spec import LoadedSpec, load_spec
from epochal.sweeps.check import check as check_sweep
from epochal.training.plan import plan
from job_table import TABLE, expected

JOBS = Path(__file__).parents[2] / "jobs"
FILES = sorted(JOBS.rglob("*.yaml"))


@pytest.fixture(params=FILES, ids=[str(path.relative_to(JOBS)) for path in FILES])
def loaded(request: pytest.FixtureRequest) -> LoadedSpec:
    return load_spec(request.param, checks=(check, check_sweep))


def test_it_plans(loaded: LoadedSpec) -> None:
    planned = plan(loaded.spec, loaded.folder)
    assert planned.total_steps > 0
    assert planned.validation_samples > 0
    assert planned.cost.flops > 0


def test_it_says_what_it_is_for(loaded: LoadedSpec) -> None:
    path = loaded.folder / Path(loaded.source).name
    assert path.read_text(encoding="utf-8").startswith("# ")
    assert loaded.spec.objective is not None


def test_every_architecture_and_dataset_has_an_example() -> None:
    specs = [load_spec(path).spec for path in FILES]
    assert {spec.model.name for spec in specs} >= {entry.name for entry in entries("architecture")}
    # Recordings are large; those that ``tones`` makes up are trained on in their place.
    assert {spec.data.name for spec in specs} >= {entry.name for entry in entries("dataset")} - {"wav-folder"}


def test_the_table_of_jobs_says_what_their_files_do() -> None:
    rows = dict(re.findall(r"^\| `(\S+\.yaml)` \| ([^|]+) \|", TABLE.read_text(encoding="utf-8"), re.MULTILINE))
    assert rows
    assert rows == {name: str(expected(JOBS / name)) for name in rows}


def test_the_data_that_comes_along_is_small() -> None:
    assert sum(path.stat().st_size for path in (JOBS / "data").rglob("*") if path.is_file()) < 400_000


def test_the_quickstart_draws_no_random_numbers_and_has_no_batch_norm() -> None:
    params = load_spec(JOBS / "quickstart.yaml").spec.model.params
    assert not {"dropout", "norm"} & params.keys()
