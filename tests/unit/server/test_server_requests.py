"""The JSON of requests, the token file, and errors as answers."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from epochal import errors
from epochal.errors import EpochalError, NotFoundError, SpecError, UsageError, from_document
from epochal.server.error_responses import STATUSES, error_response, status_of
from epochal.server.settings import file_secret
from epochal.server.spec_check import checked
from epochal.spec.load import load_spec
from running_server import SPEC, RunningServer, settings_in

ROOT = Path(__file__).parents[3]
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, EpochalError)]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with RunningServer(settings_in(tmp_path_factory.mktemp("server"))) as server:
        client = server.admin
        client.headers["Content-Type"] = "application/json"
        yield client


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ('{"spec": {"a": NaN}}', "no word for"),
        ('{"spec": {"a": -Infinity}}', "no word for"),
        ('{"spec": {"a": 1e999}}', "too large"),
        ('{"spec": {"a": "\\u0000"}}', "NUL"),
        ('{"spec": {"\\ud800": 1}}', "Unicode"),
        (b'{"spec": {"a": "\xed\xa0\x80"}}', ""),
        ('{"spec": {}}'.encode("utf-16"), ""),
        ('{"spec": {"a": ' + "[" * 100 + "]" * 100 + "}}", "nested"),
        ('{"spec": ' + "[" * 100_000, ""),
        ('{"spec": [' + "[]," * 200_000 + "[]]}", "more than 100,000 lists"),
        ('{"spec": ' + "1" * 10_000 + "}", ""),
        ("{", "JSON"),
        ("[]", "not understood"),
        ("\x00", "JSON"),
        ('{"spec": {}, "other": 1}', "other"),
        ('{"spec": "text"}', "spec"),
    ],
)
def test_a_body_that_could_not_be_stored_is_refused(client: httpx.Client, body: str | bytes, told: str) -> None:
    answer = client.post("/jobs", content=body if isinstance(body, bytes) else body.encode())
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["kind"] == "UsageError"
    assert told in error["message"]


@pytest.mark.parametrize("path", ["/jobs?name=%00", "/jobs/%00", "/%00"])
def test_a_nul_in_the_address_is_refused(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 400


def test_what_a_body_held_is_not_told_back(client: httpx.Client) -> None:
    answer = client.post("/tokens", json={"user": "ada", "role": "user", "name": {"secret": "canary"}})
    assert answer.status_code == 400
    assert "canary" not in answer.text


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_has_its_status(kind: type[EpochalError]) -> None:
    nearest = next((STATUSES[one] for one in kind.__mro__ if one in STATUSES), 500)
    assert nearest == status_of(kind.__new__(kind))


def test_an_answer_makes_the_error_again() -> None:
    answer = error_response(NotFoundError("job", "x", ("y",)))
    made = from_document(json.loads(bytes(answer.body))["error"])
    assert (answer.status_code, type(made), str(made)) == (404, NotFoundError, "no job is named 'x'; known: y")


def test_all_problems_of_a_spec_are_told_at_once() -> None:
    wrong = {**SPEC, "name": "Not A Name", "nope": 1, "model": {"name": "cnnn"}, "train": {}}
    with pytest.raises(SpecError) as caught:
        checked(wrong)
    assert {problem.path for problem in caught.value.problems} == {"name", "nope", "model.name", "train"}
    assert not [problem for problem in caught.value.problems if problem.line is not None]


@pytest.mark.parametrize("path", sorted((ROOT / "jobs").rglob("*.yaml")), ids=lambda path: path.stem)
def test_a_spec_that_a_client_resolved_is_taken_as_it_is(path: Path) -> None:
    resolved = load_spec(path).spec.model_dump(mode="json")
    assert checked(resolved).model_dump(mode="json") == resolved


def test_the_token_file_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "token"
    secret = file_secret(path, single_user=True)
    assert path.stat().st_mode & 0o777 == 0o600
    assert secret.startswith("ep_")
    assert file_secret(path, single_user=True) == secret


def test_servers_that_start_at_once_take_the_same_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, given, first = tmp_path / "token", secrets.token_urlsafe, list[str]()

    def token(size: int) -> str:
        if not first:  # between this server's look, which found no file, and its writing of one
            first.append("")
            first[0] = file_secret(path, single_user=True)
        assert first[0] or not path.exists(), "half of a file can be seen"
        return given(size)

    monkeypatch.setattr(secrets, "token_urlsafe", token)
    assert file_secret(path, single_user=True) == first[0]
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize(("mode", "single_user"), [(0o644, False), (0o640, True), (0o604, True)])
def test_a_token_file_that_others_can_read_is_refused(tmp_path: Path, mode: int, single_user: bool) -> None:
    path = tmp_path / "token"
    file_secret(path, single_user)
    path.chmod(mode)
    with pytest.raises(UsageError, match="others can read"):
        file_secret(path, single_user)


def test_a_file_without_a_token_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("short\n")
    path.chmod(0o600)
    with pytest.raises(UsageError, match="holds no token"):
        file_secret(path, single_user=False)
