"""What libraries' exceptions say is told without tokens, passwords and the values of `secrets`, wherever it is told."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from traceback import format_exception

import httpx
import pytest
import ray.exceptions as rx
import requests
from sqlalchemy import exc

from epochal.agent.retry_policy import Ending
from epochal.cli.service_log import Redacted
from epochal.client.http import foreign
from epochal.engine.events import redacted
from epochal.engine.failure import of_exception, of_ray
from epochal.errors import EpochalError
from epochal.ledger.database import mapped_errors
from epochal.ledger.states import Reason
from epochal.redaction import Redactor, named, said, trace
from epochal.tracking.connection import unreachable
from epochal.tracking.obstacle import described

TOKEN = "ep_" + "aB3-_" * 8
SECRET = "s3cretPW"
URL = f"http://ada:{SECRET}@store.example:9"
POOL = "HTTPConnectionPool(host='store.example', port=9): Max retries exceeded with url: "


def sql(error: str, statement: str = "SELECT 1", parameters: object = ()) -> exc.OperationalError:
    return exc.OperationalError(statement, parameters, Exception(error))  # type: ignore[arg-type]


@functools.cache
def foreign_errors() -> dict[str, Exception]:
    from mlflow.exceptions import MlflowException, RestException  # a second, which no other process need spend

    cause = EpochalError("it cannot be read")
    cause.__cause__ = OSError(f"{URL} is gone: No space left on device")
    return {
        "httpx header": httpx.LocalProtocolError(f"Illegal header value b'Bearer {TOKEN}\\n'"),
        "httpx URL": httpx.UnsupportedProtocol(f"Request URL has an unsupported protocol '{URL}'"),
        "httpx proxy": httpx.ProxyError(f"cannot connect to the proxy {URL}/"),
        "httpx redirect": httpx.TooManyRedirects(f"Exceeded maximum allowed redirects at {URL}/x?token={SECRET}"),
        "httpx invalid": httpx.InvalidURL(f"Invalid port in {URL}?password={SECRET}"),
        "requests URL": requests.exceptions.InvalidURL(f"Failed to parse: {URL}/api"),
        "requests query": requests.exceptions.ConnectionError(f"{POOL}/api?token={SECRET}&x=1"),
        "requests status": requests.exceptions.HTTPError(f"401 Client Error: Unauthorized for url: {URL}/api/2.0"),
        "requests header": requests.exceptions.InvalidHeader(f"Invalid header value: 'Bearer {TOKEN}'"),
        "requests proxy": requests.exceptions.ProxyError(f"Cannot connect to proxy {URL}"),
        "requests basic": requests.exceptions.InvalidHeader("Authorization: Basic YWRhOnMzY3JldFBX"),
        "sqlalchemy URL": exc.ArgumentError(f"Could not parse SQLAlchemy URL from string 'postgre:{URL[5:]}'"),
        "sqlalchemy address": sql(f"connection failed: host=db port=5432 user=ada password={SECRET} dbname=x"),
        "sqlalchemy quoted": sql(f"connection to 'host=db password={SECRET}' failed"),
        "sqlalchemy parameters": sql("database is locked", "UPDATE tokens SET x = ?", (TOKEN,)),
        "sqlalchemy driver": exc.DBAPIError("x", {}, Exception(f"postgresql://ada:{SECRET}@db/x?sslpassword={SECRET}")),
        "mlflow request": MlflowException(f"API request to {URL}/api/2.0/mlflow/runs failed with exception {POOL}/"),
        "mlflow answer": RestException({"error_code": "PERMISSION_DENIED", "message": f"Bearer {TOKEN} may not"}),
        "mlflow store": MlflowException(f"s3://bucket/x?X-Amz-Credential={SECRET}&X-Amz-Signature={SECRET}: 403"),
        "azure": MlflowException(f"https://store.example/x?sv=2024&sig={SECRET}: 403"),
        "ray task": rx.RayTaskError("work", f"Traceback:\nValueError: {URL}", ValueError(URL)),
        "ray environment": rx.RuntimeEnvSetupError(f"pip install --index-url {URL}/simple failed"),
        "ray": rx.RaySystemError(ConnectionError(f"cannot reach {URL}")),
        "cause": cause,
    }  # fmt: skip


def mapped(error: Exception) -> str:
    try:
        with mapped_errors("of the test"):
            raise error
    except Exception as raised:
        return said(raised)


def traced(error: Exception) -> str:
    try:
        raise error
    except Exception:
        return trace()


def logged(error: Exception) -> str:
    record = logging.LogRecord("x", 40, __file__, 1, "it failed: %s", (error,), (type(error), error, None))
    return Redacted("%(message)s").format(record)


PLACES: dict[str, Callable[[Exception], str]] = {
    "said": said,
    "named": named,
    "traceback": traced,
    "log": logged,
    "worker": lambda error: repr(of_exception(0, error, "")),
    "driver": lambda error: repr(of_ray(0, error)),
    "agent": lambda error: repr(Ending(Reason.USER_ERROR, str(error), "".join(format_exception(error))).redacted()),
    "tracking": described,
    "MLflow away": lambda error: str(unreachable(URL, error)),
    "server away": lambda error: str(foreign(error, "http://127.0.0.1:9")),
    "ledger": mapped,
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_credentials_are_told_nowhere(place: str) -> None:
    for name, error in foreign_errors().items():
        told = PLACES[place](error)
        assert told, name
        assert not [word for word in (SECRET, TOKEN, "YWRhOnMzY3JldFBX") if word in told], (name, told)


def test_neither_are_values_of_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "mykey-98765")
    for error in foreign_errors().values():
        wrapped = RuntimeError(f"{error}: mykey-98765, {'mykey-98765'!r}")
        ending = Ending(Reason.USER_ERROR, str(wrapped), f"Traceback\n{wrapped}").redacted(["MY_KEY"])
        failed = redacted(of_exception(0, wrapped, str(wrapped)), Redactor.of_variables(["MY_KEY"]))
        assert "mykey-98765" not in repr(ending) + repr(failed)
        assert "***" in ending.message


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("shapes differ"), "ValueError: shapes differ"),
        (KeyError("width"), "KeyError: 'width'"),
        (KeyError(), "KeyError"),
        (EpochalError("no such file"), "no such file"),
        (OSError(2, "No such file", "a.csv"), "FileNotFoundError: [Errno 2] No such file: 'a.csv'"),
        (ValueError("the token = 5, password: none"), "ValueError: the token = 5, password: none"),
        (ValueError("signature=(x, y), eos_token=2, key=3"), "ValueError: signature=(x, y), eos_token=2, key=3"),
    ],
)
def test_what_is_no_credential_is_told_as_it_is(error: Exception, told: str) -> None:
    assert named(error) == told
