"""What `epochal up` starts, as a plan, and the token of its agent."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from epochal.errors import UsageError
from epochal.ledger.ledger import Ledger
from epochal.ledger.values import Role
from epochal.local import monitoring, services
from epochal.local.credentials import agent_token_path, ensure_agent_token
from epochal.local.local_plan import DRAIN_SECONDS, Options, local_plan
from epochal.settings import home


@pytest.mark.parametrize(
    ("uri", "services_of", "mlflow"),
    [
        ("sqlite:////data/mlflow.db", ["mlflow", "server", "agent"], "http://127.0.0.1:5000"),
        ("http://127.0.0.1:5000", ["mlflow", "server", "agent"], "http://127.0.0.1:5000"),
        ("http://127.0.0.1:5001", ["server", "agent"], "http://127.0.0.1:5001"),
        ("https://mlflow.example.org", ["server", "agent"], "https://mlflow.example.org"),
    ],
)
def test_plan_follows_where_runs_are_recorded(uri: str, services_of: list[str], mlflow: str) -> None:
    plan = local_plan(home(), Options().resolved(), uri)
    assert [service.name for service in plan.services] == services_of
    assert plan.options["mlflow_url"] == mlflow
    assert all(service.environment["MLFLOW_TRACKING_URI"] == mlflow for service in plan.services[-2:])


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("http://127.0.0.1:99999", "is no URL: Port out of range"),
        ("http://localhost:abc", "is no URL: Port"),
        ("http://[::1", "is no URL: Invalid IPv6"),
        ("./mlruns", "the runs are at ./mlruns"),
        ("databricks", "the runs are at databricks"),
    ],
)
def test_runs_that_no_server_here_can_show_are_no_plan(uri: str, told: str) -> None:
    """What has no scheme was taken for the home's own file, without a word."""
    with pytest.raises(UsageError, match=re.escape(told)):
        local_plan(home(), Options().resolved(), uri)


def test_plan_passes_the_options_and_no_secret() -> None:
    plan = local_plan(home(), Options(8701, 5001, 3, 2), "sqlite:////data/mlflow.db")
    mlflow, server, agent = plan.services
    assert (mlflow.url, server.url) == ("http://127.0.0.1:5001", "http://127.0.0.1:8701")
    assert list(agent.command[-4:]) == ["--warm", "3", "--cpus", "2"]
    assert agent.probe.token_file == str(agent_token_path(home()))
    assert agent.stop_seconds == DRAIN_SECONDS
    assert agent.needs == ("server",)
    assert "ep_" not in plan.to_json()
    assert all("mlflow" not in argument for argument in server.command)  # its URL may hold a password


def test_one_port_cannot_be_two() -> None:
    with pytest.raises(UsageError, match="cannot share port 8700"):
        local_plan(home(), Options(8700, 8700), "sqlite:////data/mlflow.db")


def test_monitoring_adds_a_prometheus_that_reads_the_server_and_the_agents_ray() -> None:
    plan = local_plan(home(), Options(8701, 5001, prometheus_port=8791), "sqlite:////data/mlflow.db")
    *_, agent, prometheus = plan.services
    assert [service.name for service in plan.services] == ["mlflow", "server", "agent", "prometheus"]
    ray_port = plan.options["ray_metrics_port"]
    assert list(agent.command[-2:]) == ["--ray-metrics", str(ray_port)]
    assert prometheus.probe.url == "http://127.0.0.1:8791/-/ready"
    assert "--web.listen-address=127.0.0.1:8791" in prometheus.command
    home().services.mkdir(parents=True)
    monitoring.write_settings(plan)
    [file] = [part.partition("=")[2] for part in prometheus.command if part.startswith("--config.file=")]
    settings = yaml.safe_load(Path(file).read_text())
    [rules] = settings["rule_files"]
    assert "EpochalTrainingStalled" in Path(rules).read_text()
    scraped = {one["job_name"]: one["static_configs"][0]["targets"] for one in settings["scrape_configs"]}
    assert scraped == {"epochal": ["127.0.0.1:8701"], "ray": [f"127.0.0.1:{ray_port}"]}


@pytest.mark.parametrize("port", [8701, 5001])
def test_prometheus_cannot_have_a_port_of_another_service(port: int) -> None:
    with pytest.raises(UsageError, match=f"port {port}"):
        local_plan(home(), Options(8701, 5001, prometheus_port=port), "sqlite:////data/mlflow.db")
    elsewhere = "https://mlflow.example.org"  # no MLflow is started
    assert port == 8701 or local_plan(home(), Options(8701, 5001, prometheus_port=port), elsewhere)


def test_what_runs_without_monitoring_is_told_apart() -> None:
    running = {"port": 8700, "prometheus_port": None}
    assert Options(prometheus_port=8790).differences(running) == [
        "--prometheus-port is unused, as they run without --monitoring, not 8790"
    ]
    assert Options().differences({"port": 8700, "prometheus_port": 8790}) == []


@pytest.mark.parametrize(
    ("installed", "words"),
    [("", "Prometheus, which is not installed here"), ("/usr/bin/prometheus", "Ray needs aiohttp_cors")],
    ids=["prometheus", "ray"],
)
def test_what_monitoring_lacks_is_named(monkeypatch: pytest.MonkeyPatch, installed: str, words: str) -> None:
    monkeypatch.setattr(monitoring.shutil, "which", lambda name: installed or None)
    monkeypatch.setattr(monitoring, "find_spec", lambda name: None if name == "aiohttp_cors" else name)
    with pytest.raises(UsageError, match=words) as error:
        monitoring.require_monitoring()
    assert "install" in error.value.hint


def test_no_warm_worker_is_not_the_default_number() -> None:
    assert Options(warm=2).differences({"warm": 0}) == ["--warm is 0, not 2"]
    assert Options(warm=2).differences({"warm": None}) == ["--warm is the default, not 2"]


def test_plan_of_another_database_is_refused() -> None:
    with pytest.raises(UsageError):
        local_plan(home(), Options().resolved(), "postgresql://db/mlflow")


def test_agent_token_is_kept_while_it_is_good(monkeypatch: pytest.MonkeyPatch) -> None:
    path = agent_token_path(home())
    home().root.mkdir()
    read: Callable[[], str] = lambda: (ensure_agent_token(home()), path.read_text())[1]  # noqa: E731
    first = read()
    assert path.stat().st_mode & 0o777 == 0o600
    assert read() == first
    with Ledger.open(home().served.ledger_url) as ledger:
        known = ledger.token(first.strip())
        assert known is not None
        assert known.role is Role.AGENT
        ledger.revoke_token(known.id)
        ledger.create_token("ada", "user", known.name)
    second = read()
    assert second != first
    path.chmod(0o644)
    third = read()
    assert third != second, "others could have read it"
    with Ledger.open(home().served.ledger_url) as ledger:
        assert ledger.token(second.strip()) is None
        good = [token.user for token in ledger.tokens() if token.revoked_at is None]
        assert sorted(good) == ["ada", known.user], "somebody else's may be called the same"


def test_exit_is_told_in_words() -> None:
    shown: list[Any] = [services.describe_exit(code) for code in (None, 0, 5, -9, -200)]
    assert shown == ["not ended yet", "exit code 0", "exit code 5", "killed by SIGKILL", "exit code -200"]
