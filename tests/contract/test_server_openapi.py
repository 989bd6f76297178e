"""The description of the interface against what is answered: no failure, and nothing that it does not tell of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from running_server import SPEC, RunningServer, settings_in

OPERATIONS = 39
LIMITS = settings(
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(settings_in(tmp_path_factory.mktemp("server"))) as running:
        for key in ("a", "b"):
            running.admin.post("/jobs", json={"spec": SPEC, "key": key})
        yield running


@pytest.fixture(scope="module")
def document(server: RunningServer) -> dict[str, Any]:
    return server.admin.get("/openapi.json").json()


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for path in document["paths"].values() for operation in path.values()]


def test_everything_is_described(document: dict[str, Any]) -> None:
    for operation in operations(document):
        assert operation["description"]
        assert len({"200", "201", "204"} & set(operation["responses"])) >= 1
        assert not [status for status, told in operation["responses"].items() if not told["description"]]
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_all_but_health_and_the_page_needs_a_token(document: dict[str, Any]) -> None:
    open_to_all = {
        path
        for path, found in document["paths"].items()
        for operation in found.values()
        if {} in operation.get("security", [{}])
    }
    assert open_to_all == {"/healthz", "/readyz", "/metrics"}


@pytest.mark.parametrize("examples", [2, pytest.param(12, marks=pytest.mark.slow)])
def test_answers_are_what_the_description_says(server: RunningServer, document: dict[str, Any], examples: int) -> None:
    # Not while tests are collected, which every worker does: its import takes a second.
    import schemathesis
    from schemathesis.generation import GenerationMode

    schemathesis.serializer("application/zip")(as_it_is)
    schema = schemathesis.openapi.from_dict(document)
    tried: dict[str, set[int]] = {}
    for found in schema.get_all_operations():
        operation = found.ok()
        statuses = tried.setdefault(operation.label, set())
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            if mode is GenerationMode.NEGATIVE and not (operation.body or operation.query or operation.path_parameters):
                continue
            check(server, operation.as_strategy(generation_mode=mode), examples, statuses)
    assert len(tried) >= OPERATIONS
    assert not [label for label, statuses in tried.items() if not statuses]


def as_it_is(_context: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def check(server: RunningServer, cases: Any, examples: int, statuses: set[int]) -> None:
    from schemathesis.specs.openapi.checks import ignored_auth, negative_data_rejection, positive_data_acceptance

    not_ours = [
        ignored_auth,  # every request below carries a token
        negative_data_rejection,  # the token is put in place of what was generated for it
        positive_data_acceptance,  # a JSON Schema cannot say what makes a job spec valid
    ]
    headers = {"Authorization": server.admin.headers["Authorization"]}

    @settings(LIMITS, max_examples=examples)
    @given(case=cases)
    def answers_as_described(case: Any) -> None:
        at_once(case)
        answer = case.call_and_validate(base_url=server.url, headers=headers, excluded_checks=not_ours)
        statuses.add(answer.status_code)

    answers_as_described()


def at_once(case: Any) -> None:
    """Without waiting for what does not come."""
    for part in (case.query, case.body):
        if isinstance(part, dict) and isinstance(part.get("wait"), int | float):
            part["wait"] = 0
