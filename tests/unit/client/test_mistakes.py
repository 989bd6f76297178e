"""A client's own mistake is told as what it is, and nothing of a token is."""

from __future__ import annotations

import datetime
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from epochal.cli.main import main
from epochal.client import Client
from epochal.client.address import find_address, read_token
from epochal.client.checks import checked_url
from epochal.client.contexts import Config, Context
from epochal.client.http import Http
from epochal.errors import EpochalError, UnreachableError, UsageError
from epochal.settings import home
from running_server import RunningServer, settings_in

pytestmark = pytest.mark.usefixtures("asked_once")

TOKEN = "ep_verysecret"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(settings_in(tmp_path_factory.mktemp("server"))) as running:
        yield running


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler], tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Something else: its host and port."""
    other = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if tls is not None:
        other.socket = tls.wrap_socket(other.socket, server_side=True)
    thread = threading.Thread(target=other.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"127.0.0.1:{other.server_port}"
    finally:
        other.shutdown()
        thread.join()
        other.server_close()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        return


class Known(BaseHTTPRequestHandler):
    """Answers a few paths, as a server of that name does."""

    answers: dict[str, str]

    def do_GET(self) -> None:
        found = self.answers.get(self.path)
        raw = (found or "<!doctype html><title>404 Not Found</title>").encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    log_message = Quiet.log_message


class Mlflow(Known):
    answers = {"/version": "3.4.0", "/health": "OK", "/": "<html>"}


class Ray(Known):
    answers = {"/api/version": '{"version": "4", "ray_version": "2.50.0"}', "/": "<html>"}


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """Of a certificate that nobody trusts."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(1))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


def told(server: str, token: str | None = TOKEN) -> EpochalError:
    with pytest.raises(EpochalError) as caught, Client(server, token) as client:
        client.whoami()
    assert "verysecret" not in f"{caught.value} {caught.value.hint}"
    return caught.value


@pytest.mark.parametrize(
    ("url", "said", "hint"),
    [
        ("", "it is empty", "such as"),
        ("127.0.0.1:8700", "does not begin with http", "http://127.0.0.1:8700"),
        ("epochal.example.org", "does not begin with http", "http://epochal.example.org"),
        ("localhost:8700/#token=ep_verysecret", "does not begin with http", "http://localhost:8700"),
        ("ftp://127.0.0.1:8700", "ftp:// is not http", "such as"),
        ("postgresql://ada:verysecret@db/epochal", "postgresql:// is not http", "such as"),
        ("http://", "names no host", "such as"),
        ("http://:8700", "names no host", "such as"),
        ("http://127.0.0.1:eight", "a port is a number", "such as"),
        ("http://127.0.0.1:0", "a port is a number", "such as"),
        ("http://127.0.0.1:", "a port is a number", "such as"),
        ("http://127.0.0.1:99999", "a port is a number", "such as"),
        ("http://127.0.0.1:8700\n", "a line break", "such as"),
        ("http:/127.0.0.1:8700", "does not begin with http", "try http://127.0.0.1:8700"),
        ("http//127.0.0.1:8700", "does not begin with http", "try http://127.0.0.1:8700"),
        ("'http://127.0.0.1:8700'", "in quotes or brackets", "the URL alone"),
        ("<http://127.0.0.1:8700>", "in quotes or brackets", "the URL alone"),
        ("http://::1:8700", "names no host", "such as"),
        ("http://http://127.0.0.1", "a port is a number", "such as"),
        ("http://127.0.0.1:8700,http://127.0.0.1", "a port is a number", "such as"),
        ("http://127.0.0.1 :8700", "a space", "such as"),
        ("http://[::1:8700", "no host can be called", "such as"),
        ("http://exa\u2028mple", "a space, a line break", "such as"),
        (
            "http://127.0.0.1:8700/#token=ep_verysecret",
            "goes on after 'http://127.0.0.1:8700/'",
            "http://127.0.0.1:8700",
        ),
        ("http://127.0.0.1:8700#job=digits-1", "goes on after 'http://127.0.0.1:8700'", "http://127.0.0.1:8700"),
        ("http://127.0.0.1:8700/?token=ep_verysecret", "goes on after", "http://127.0.0.1:8700"),
        ("http://127.0.0.1:5000/#/experiments/1", "goes on after", "http://127.0.0.1:5000"),
        ("http://ada:verysecret@127.0.0.1:8700", "no user and no password", "epochal login"),
        ("http://verysecret@127.0.0.1:8700", "no user and no password", "epochal login"),
    ],
)
def test_a_url_that_is_none_is_refused_before_anything_is_sent(url: str, said: str, hint: str) -> None:
    error = told(url)
    assert type(error) is UsageError
    assert said in str(error)
    assert hint in error.hint


@pytest.mark.parametrize(
    "url", ["http://[::1]:8700", "https://epochal.example.org/team", "HTTP://localhost", "http://b\u00fccher.example"]
)
def test_a_url_may_look_like_this(url: str) -> None:
    assert checked_url(f"{url}/") == url


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("ep_verysecret\n", "a line break at place 14 of 14"),
        ("ep_very\r\nsecret", "a line break at place 8"),
        ("ep verysecret", "a space at place 3"),
        (" ep_verysecret", "a space at place 1"),
        ("ep_verysecret\u00fc", "not ASCII at place 14"),
        ("\u201cep_verysecret\u201d", "not ASCII at place 1"),
        ("ep_\udcffverysecret", "not ASCII at place 4"),
        ("ep_\x00verysecret", "a control character at place 4"),
        ("ep_verysecret\x7f", "a control character"),
        ("ep_very\tsecret", "a space at place 8"),
        ("ep_very\u2028secret", "a space at place 8"),
    ],
)
@pytest.mark.parametrize("held_by", ["the token", "EPOCHAL_TOKEN", "the token of the context team"])
def test_a_token_that_no_header_carries_is_refused(token: str, said: str, held_by: str) -> None:
    url = "http://127.0.0.1:1"
    Config().having(Context("team", url, token)).save(home().config)
    ways = {
        "the token": lambda: Http(url, token),
        "EPOCHAL_TOKEN": lambda: find_address(url, environ={"EPOCHAL_TOKEN": token}),
        "the token of the context team": lambda: Config.load(home().config),
    }
    with pytest.raises(UsageError, match="is no token") as caught:
        ways[held_by]()
    assert str(caught.value).startswith(held_by)
    assert said in str(caught.value)
    assert "secret" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    "content", ["ep_verysecret\nep_another\n", "ep_verysecr\u00fct", "\ufeffep_verysecret", "token: ep_x"]
)
def test_a_token_file_that_holds_something_else(content: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match="is no token") as caught:
        read_token(tmp_path / "token")
    assert str(tmp_path / "token") in str(caught.value)
    assert "ep_" not in str(caught.value)


def test_mlflow_in_place_of_ours() -> None:
    with listening(Mlflow) as other:
        error = told(f"http://{other}")
    assert type(error) is UnreachableError
    assert str(error) == f"what answers at http://{other} is not an Epochal server: that is MLflow 3.4.0"
    assert "8700" in error.hint


def test_ray_s_dashboard_in_place_of_ours() -> None:
    with listening(Ray) as other:
        assert str(told(f"http://{other}")).endswith("is not an Epochal server: that is Ray's dashboard")


def test_something_else_in_place_of_ours() -> None:
    with listening(Quiet) as other:
        assert "is not an Epochal server: that is SimpleHTTP/" in str(told(f"http://{other}"))


def test_https_on_a_port_of_http(server: RunningServer) -> None:
    error = told(server.url.replace("http", "https"))
    assert type(error) is UsageError
    assert "speaks http, not https" in str(error)
    assert server.url in error.hint


def test_http_on_a_port_of_https(tls: ssl.SSLContext) -> None:
    with listening(Quiet, tls) as other:
        error = told(f"http://{other}")
    assert type(error) is UsageError
    assert "speaks https, not http" in str(error)
    assert f"https://{other}" in error.hint


def test_a_certificate_that_is_not_trusted(tls: ssl.SSLContext) -> None:
    with listening(Quiet, tls) as other:
        error = told(f"https://{other}")
    assert "is not one that this machine trusts" in str(error)
    assert "SSL_CERT_FILE" in error.hint


@pytest.mark.parametrize("path", ["/api/v1", "/jobs", "/index.html", "/static/app.js", "/a/b"])
def test_a_path_too_many(server: RunningServer, path: str) -> None:
    error = told(server.url + path)
    assert type(error) is UsageError
    assert str(error) == f"there is no Epochal server at {server.url}{path}: it is at {server.url}"


def test_nobody_has_that_name() -> None:
    assert "no host is called 'nobody.invalid'" in str(told("http://nobody.invalid:8700"))


def test_a_port_that_is_not_ours_by_default() -> None:
    assert "8700" in told("http://127.0.0.2").hint


def test_a_token_that_is_not_known_is_no_stranger_s(server: RunningServer) -> None:
    assert "this token is not known" in str(told(server.url))


NO_JOB = [
    "", ".", "..", "../whoami", "a/b", "a b", "a?b", "a#b", "%2e", "jobs/x.yaml", "\u00fc", "a" * 101, "\udcff", "a\n",
]  # fmt: skip
VERBS = ["job", "attempts", "why", "stop", "pause", "resume", "retry", "event_page", "log_page"]


@pytest.mark.parametrize("ref", NO_JOB)
@pytest.mark.parametrize("verb", VERBS)
def test_what_can_be_no_job_is_not_asked_for(server: RunningServer, verb: str, ref: str) -> None:
    with Client(server.url, TOKEN) as client, pytest.raises(UsageError, match="no job can be called") as caught:
        getattr(client, verb)(ref)
    assert "`epochal jobs`" in caught.value.hint


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-a", "a b", "\u00fc", "a" * 101])
def test_what_can_be_no_user_or_queue_is_not_sent(server: RunningServer, name: str) -> None:
    with Client(server.url, TOKEN) as client:
        calls = [
            lambda: client.create_token(name),
            lambda: client.create_token(name, "agent"),
            lambda: client.revoke_token(name),
            lambda: client.set_quota("user", name, jobs=1),
            lambda: client.delete_quota("queue", name),
            lambda: client.jobs(user=name),
            lambda: client.jobs(queue=name),
            lambda: client.jobs(name=name),
        ]
        for call in calls:
            with pytest.raises(UsageError, match="can be called"):
                call()


@pytest.mark.parametrize(
    "arguments",
    [["status", "."], ["status", ".."], ["status", ""], ["logs", "a/b"], ["stop", ".."], ["events", "jobs/x.yaml"],
     ["token", "create", ".."], ["quota", "set", "user", "..", "--jobs", "1"], ["jobs", "--user", ".."],
     ["status", "--server", ""]],
)  # fmt: skip
def test_commands_tell_it(arguments: list[str], server: RunningServer, capsys: pytest.CaptureFixture[str]) -> None:
    named = [] if "--server" in arguments else ["--server", server.url]
    assert main([*arguments, *named]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "hint: " in said
    assert not (home().config).exists()
