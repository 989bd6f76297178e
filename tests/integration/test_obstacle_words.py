"""What an error of MLflow's client means: its kind, and whether anything else arrives there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from epochal.errors import UnreachableError
from epochal.tracking.connection import connect, unreachable
from epochal.tracking.obstacle import ArtifactError, obstacle_of

HTML = "<html><body>nginx</body></html>"


class Answers(BaseHTTPRequestHandler):
    answer = (200, "")

    def do_GET(self) -> None:
        status, body = self.answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def raised(uri: str) -> Exception:
    """By MLflow's client, whatever its class."""
    try:
        connect(uri).get_experiment_by_name("digits")
    except Exception as error:
        return error
    raise AssertionError("it was answered")


def coded(code: str) -> str:
    return f'{{"error_code": "{code}", "message": "so it is"}}'


ANSWERS: dict[str, tuple[int, str, str, bool]] = {
    "401": (401, "You are not authenticated.", "unknown user", True),
    "401-json": (401, coded("CUSTOMER_UNAUTHORIZED"), "unknown user", True),
    "403": (403, "Permission denied", "forbidden", False),
    "403-json": (403, coded("PERMISSION_DENIED"), "forbidden", False),
    "413": (413, HTML, "too large", False),
    "429": (429, "slow down", "quota", False),
    "429-json": (429, coded("REQUEST_LIMIT_EXCEEDED"), "quota", False),
    "quota-json": (400, coded("RESOURCE_EXHAUSTED"), "quota", False),
    "507": (507, "full", "quota", False),
    "400": (400, HTML, "refused", False),
    "400-json": (400, coded("INVALID_PARAMETER_VALUE"), "refused", False),
    "404": (404, HTML, "not mlflow", True),
    "404-json": (404, '{"detail": "Not Found"}', "not mlflow", True),
    "405": (405, "", "not mlflow", True),
    "301": (301, "", "not mlflow", True),
    "302": (302, "", "not mlflow", True),
    "html": (200, HTML, "not mlflow", True),
    "list": (200, "[1, 2]", "not mlflow", True),
    "500": (500, "boom", "failed", False),
    "500-json": (500, coded("INTERNAL_ERROR"), "failed", False),
    "502": (502, HTML, "away", True),
    "503": (503, HTML, "away", True),
    "504": (504, coded("DEADLINE_EXCEEDED"), "away", True),
    "unknown-code": (418, coded("TEAPOT"), "failed", False),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers(name: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    status, body, kind, whole = ANSWERS[name]
    monkeypatch.setattr(Answers, "answer", (status, body))
    error = raised(url)
    found = obstacle_of(url, error)
    assert (found.kind, found.whole, found.deleted) == (kind, whole, False)
    assert found.said.startswith(f"MLflow at {url} ")
    assert found.remedy
    told = unreachable(url, error)
    assert type(told) is UnreachableError
    assert found.said == str(told)
    assert found.remedy in told.hint


ADDRESSES = {
    "http://127.0.0.1:9": "away",
    "http://nobody.invalid:5000": "away",
    "http://127.0.0.1:99999": "not a uri",
    "foo://x": "not a uri",
    "localhost:5000": "not a uri",
    "./mlruns": "not a uri",
    "file:///nowhere/mlruns": "not a uri",
    "sqlite:////proc/nowhere/mlflow.db": "disk",
    "postgresql+psycopg://nobody@127.0.0.1:9/none": "database",
}


@pytest.mark.parametrize("uri", ADDRESSES)
def test_addresses(uri: str) -> None:
    begun = time.monotonic()
    found = obstacle_of(uri, raised(uri))
    assert time.monotonic() - begun < 20, "MLflow itself tries a database again for 100 s"
    assert (found.kind, found.whole) == (ADDRESSES[uri], True)


@pytest.mark.parametrize(
    ("cause", "kind", "whole"),
    [
        (PermissionError(13, "Permission denied", "/store/x"), "artifacts", False),
        (OSError(28, "No space left on device"), "artifacts", False),
        (ModuleNotFoundError("No module named 'boto3'"), "artifacts", False),
        (RuntimeError("the bucket is gone"), "artifacts", False),
        (ConnectionError("Max retries exceeded"), "away", True),
    ],
    ids=["rights", "full", "library", "bucket", "away"],
)
def test_artifacts(cause: Exception, kind: str, whole: bool) -> None:
    error = ArtifactError("job.yaml")
    error.__cause__ = cause
    found = obstacle_of("http://127.0.0.1:5000", error)
    assert (found.kind, found.whole) == (kind, whole)
    assert "job.yaml" in found.said
    assert str(cause) in found.said
