"""Hosts and URLs."""

from __future__ import annotations

import socket

import pytest

from epochal import urls
from epochal.errors import UsageError
from epochal.settings import tracking_uri
from epochal.urls import free_port, has_password, is_loopback, without_password


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1", "::1"])
def test_what_stays_on_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "10.0.0.5", "localhost.example.org", "127.0.0.1.example.org"])
def test_what_others_reach(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("https://ada:secret@mlflow/x@y", "https://mlflow/x@y"),
        ("https://token@mlflow", "https://mlflow"),
        ("sqlite:////data/mlflow.db", "sqlite:////data/mlflow.db"),
        ("sqlite:////data/a:b@c/mlflow.db", "sqlite:////data/a:b@c/mlflow.db"),
        ("http://ada:pass@word@mlflow:5000", "http://mlflow:5000"),
        ("http://ada:pass/wo#rd?@mlflow:5000/x", "http://mlflow:5000/x"),
        ("http://:secret@mlflow/", "http://mlflow/"),
        ("http://[::1]:5000/x@y", "http://[::1]:5000/x@y"),
        ("http://mlflow:5000/x@y", "http://mlflow:5000/x@y"),
        ("http://mlflow:5000", "http://mlflow:5000"),
        ("postgresql+psycopg://ada:s%40@/x?host=/run", "postgresql+psycopg:///x?host=/run"),
        ("postgresql://db/x?user=ada&password=secret", "postgresql://db/x?user=ada&password=***"),
        ("postgresql://db/x?sslpassword=secret&x=1", "postgresql://db/x?sslpassword=***&x=1"),
        ("s3://bucket?secret_key=a&access_key=b#c", "s3://bucket?secret_key=***&access_key=***#c"),
        ("https://mlflow/?TOKEN=a", "https://mlflow/?TOKEN=***"),
        ("https://mlflow/?tokens=3", "https://mlflow/?tokens=3"),
        ("no answer from http://ada:a@m/ (http://ada:b@m/api)", "no answer from http://m/ (http://m/api)"),
        ("write to ada@example.org", "write to ada@example.org"),
        ("not a URL: //ada:secret", "not a URL: //ada:secret"),
    ],
)
def test_a_password_is_not_shown(url: str, shown: str) -> None:
    assert without_password(url) == shown


@pytest.mark.parametrize(
    ("url", "has"),
    [
        ("http://mlflow:5000/x@y", False),
        ("http://ada@mlflow", False),
        ("http://ada:secret@mlflow", True),
        ("http://ada:se/cret@mlflow", True),
        ("postgresql://db/x?password=secret", True),
        ("postgresql://db/x?sslmode=require", False),
    ],
)
def test_which_have_one(url: str, has: bool) -> None:
    assert has_password(url) == has


def test_a_tracking_uri_that_is_no_url_is_told() -> None:
    with pytest.raises(UsageError, match="MLFLOW_TRACKING_URI is no URL: Invalid IPv6 URL"):
        tracking_uri({"MLFLOW_TRACKING_URI": "http://[::1"})
    assert tracking_uri({"MLFLOW_TRACKING_URI": "http://[::1]:5000"}) == "http://[::1]:5000"


def test_a_free_port_is_none_that_the_system_gives_to_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as given_out:
        taken = given_out.getsockname()[1]
        assert taken not in urls._NEVER_GIVEN_OUT
        free = free_port()
        assert free in urls._NEVER_GIVEN_OUT
        monkeypatch.setattr(urls, "_NEVER_GIVEN_OUT", [taken, free])
        assert {free_port() for _ in range(20)} == {free}


def test_an_address_of_another_machine_has_no_free_port() -> None:
    with pytest.raises(OSError, match="assign"):
        free_port("192.0.2.1")
