"""Which server a command talks to, and where tokens are kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from epochal.client.address import find_address, read_token
from epochal.client.contexts import Config, Context
from epochal.errors import NotFoundError, UnreachableError, UsageError
from epochal.settings import home

TEAM = Context("team", "https://epochal.example.org", "ep_team")
OTHER = Context("other", "http://127.0.0.1:8701", "ep_other")
LOCAL = "http://127.0.0.1:8700"


def keep(*contexts: Context) -> None:
    """The last one is the current one."""
    config = Config()
    for context in contexts:
        config = config.having(context)
    config.save(home().config)


def start_here(state: str = "ready", token: str = "ep_local") -> None:
    """What `epochal up` leaves: its services' state, and a token."""
    home().services.mkdir(parents=True)
    services = [{"name": "mlflow", "state": "ready", "url": "http://127.0.0.1:5000"}]
    services.append({"name": "server", "state": state, "url": LOCAL})
    (home().services / "state.json").write_text(json.dumps({"services": services}))
    home().token.write_text(f"{token}\n")


def test_a_config_is_read_as_it_was_written() -> None:
    keep(TEAM, OTHER)
    config = Config.load(home().config)
    assert dict(config.contexts) == {"team": TEAM, "other": OTHER}
    assert config.current == "other"
    assert config.using("team").current == "team"
    assert config.without("other") == Config({"team": TEAM}, None)


def test_tokens_are_for_their_owner_alone() -> None:
    keep(TEAM)
    path = home().config
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    with pytest.raises(UsageError, match="others can read it") as caught:
        Config.load(path)
    assert caught.value.hint == f"chmod 600 {path}"


def test_tokens_are_not_shown() -> None:
    assert "ep_team" not in repr(TEAM)
    assert "ep_team" not in str(TEAM.to_dict())
    keep(TEAM)
    assert "ep_team" not in repr(find_address(environ={"EPOCHAL_HOME": str(home().root)}))


@pytest.mark.parametrize(
    "text",
    [
        "- a\n",
        "contexts: [a]\n",
        "contexts: {a: {token: x}}\n",
        "contexts: {a: b}\n",
        "a: [\n",
        "contexts: {a: {server: x}}\n",
    ],
)
def test_a_config_that_is_none_is_refused(text: str) -> None:
    home().root.mkdir(parents=True)
    home().config.write_text(text)
    with pytest.raises(UsageError):
        Config.load(home().config)


def test_an_unknown_context_is_not_found() -> None:
    keep(TEAM)
    with pytest.raises(NotFoundError, match="'team'"):
        find_address(context="tem")


def test_without_anything_nothing_is_known() -> None:
    with pytest.raises(UnreachableError, match="no server is known") as caught:
        find_address()
    assert "epochal up" in caught.value.hint
    assert "epochal login" in caught.value.hint


def test_the_order_in_which_a_server_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    start_here()
    assert (find_address().server, find_address().token) == (LOCAL, "ep_local")
    keep(TEAM, OTHER)
    assert find_address().server == OTHER.server
    monkeypatch.setenv("EPOCHAL_CONTEXT", "team")
    assert (find_address().server, find_address().token) == (TEAM.server, "ep_team")
    monkeypatch.setenv("EPOCHAL_SERVER", "http://127.0.0.1:9000/")
    assert (find_address().server, find_address().token) == ("http://127.0.0.1:9000", None)
    assert find_address(context="other").server == OTHER.server
    assert find_address("http://127.0.0.1:9001").server == "http://127.0.0.1:9001"
    monkeypatch.setenv("EPOCHAL_TOKEN", "ep_mine")
    assert find_address(context="other").token == "ep_mine"


def test_what_named_the_server_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_address("http://127.0.0.1:9001").named_by == "--server"
    monkeypatch.setenv("EPOCHAL_SERVER", "http://127.0.0.1:9000")
    assert find_address().named_by == "EPOCHAL_SERVER"


def test_a_named_server_gets_only_its_own_token() -> None:
    start_here()
    keep(TEAM, OTHER)
    assert find_address(TEAM.server).token == "ep_team"
    assert find_address(LOCAL).token == "ep_local"
    assert find_address("http://127.0.0.1:8799").token is None
    with pytest.raises(UsageError, match="not both"):
        find_address(LOCAL, "team")


def test_services_that_were_stopped_are_gone() -> None:
    start_here("stopped")
    with pytest.raises(UnreachableError):
        find_address()


@pytest.mark.parametrize(
    "server", ["127.0.0.1:8700", "ftp://host", "http://", "http://u:p@host", "http://h:x", "http://h?a=b"]
)
def test_a_url_that_is_none_of_a_server_is_refused(server: str) -> None:
    with pytest.raises(UsageError):
        find_address(server)


def test_a_token_file_holds_one_word(tmp_path: Path) -> None:
    path = tmp_path / "token"
    assert read_token(path) is None
    path.write_text("ep_abc\n")
    assert read_token(path) == "ep_abc"
    path.write_text("")
    with pytest.raises(UsageError, match="holds no token"):
        read_token(path)
