"""The commands that talk to a server, against a real one: what they print, their exit codes, and what they import."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from restartable_server import SPEC, PlayedAgent, RestartableServer

from epochal.cli.main import main
from epochal.client import Client
from epochal.client.contexts import Config
from epochal.ledger.states import JobState, Reason
from epochal.ledger.values import Job
from epochal.settings import home
from polling import until

Submit = Callable[..., Job]
Run = Callable[..., tuple[int, str, str]]

pytestmark = pytest.mark.usefixtures("connected")

EPOCHAL = [sys.executable, "-m", "epochal.cli.main"]
HEAVY = {"ray", "torch", "mlflow", "sqlalchemy", "alembic", "fastapi", "psutil", "numpy", "pandas", "uvicorn"}
PROBE = """
import contextlib, io, json, sys
from epochal.cli.main import main
with contextlib.redirect_stdout(io.StringIO()):
    codes = [main(arguments) for arguments in json.loads(sys.argv[1])]
print(json.dumps({"codes": codes, "loaded": sorted({name.partition(".")[0] for name in sys.modules})}))
"""


@pytest.fixture
def spec(tmp_path: Path) -> str:
    return written(tmp_path / "job.yaml")


def written(path: Path, **changes: object) -> str:
    path.write_text(yaml.safe_dump({**SPEC, **changes}))
    return str(path)


def test_submit_prints_the_id_and_how_to_go_on(run: Run, spec: str, client: Client) -> None:
    code, out, err = run("submit", spec, "-s", "train.epochs=3", "--name", "typed")
    job = client.job("typed")
    assert (code, job.spec["train"]["epochs"]) == (0, 3)
    assert re.search(rf"^{job.id} +QUEUED +50$", out, re.MULTILINE)
    assert f"epochal logs -f {job.id}" in err
    code, out, _ = run("submit", spec, "-o", "name")
    assert client.job(out.strip()).state is JobState.QUEUED
    code, out, _ = run("submit", spec, "-o", "json")
    assert json.loads(out)[0]["created"] is True


def test_several_specs_or_none(run: Run, tmp_path: Path, spec: str, client: Client) -> None:
    other = written(tmp_path / "other.yaml", name="other")
    code, out, _ = run("submit", spec, other, "-o", "name")
    assert code == 0
    assert [client.job(identity).name for identity in out.split()] == ["small", "other"]
    code, out, err = run("submit", spec, other)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["ID", *(job.id for job in client.jobs(limit=2)[::-1])], (
        err
    )
    before = len(client.jobs(limit=1000))
    wrong = written(tmp_path / "wrong.yaml", train={"epochs": 0})
    worse = written(tmp_path / "worse.yaml", model={"name": "mpl"})
    code, out, err = run("submit", spec, wrong, worse)
    assert (code, out, len(client.jobs(limit=1000))) == (2, "", before)
    assert "wrong.yaml:" in err
    assert "did you mean 'mlp'?" in err
    assert run("submit", spec, other, "--name", "x")[0] == 2
    assert run("submit", spec, other, "--follow")[0] == 2


def test_what_could_not_be_trained_is_not_queued(run: Run, client: Client, tmp_path: Path) -> None:
    before = len(client.jobs(limit=1000))
    (tmp_path / "t.csv").write_text("a,y\n" + "1,yes\n" * 9)
    data = {"name": "csv", "params": {"path": "t.csv", "target": "y"}}
    one = written(tmp_path / "one.yaml", data=data, model={"name": "mlp"}, task={"name": "classification"})
    code, out, err = run("submit", one)
    assert (code, out, len(client.jobs(limit=1000))) == (2, "", before)
    assert re.search(r"one\.yaml:\d+: data: the target y has one class", err)
    assert run("submit", one, "--no-check")[0] == 0
    (tmp_path / "t.csv").unlink()
    code, _, err = run("submit", one)
    assert code == 0
    assert "not checked with its data: t.csv is not on this machine" in err


def test_a_dry_run_sends_nothing(run: Run, spec: str, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(client.jobs(limit=1000))
    monkeypatch.delenv("EPOCHAL_SERVER")
    code, out, _ = run("submit", spec, "--dry-run", "-s", "priority=9")
    assert (code, yaml.safe_load(out)["spec"]["priority"]) == (0, 9)
    assert len(client.jobs(limit=1000)) == before


def test_a_key_used_again_and_a_job_done_before_are_told(run: Run, spec: str, agent: PlayedAgent) -> None:
    _, out, _ = run("submit", spec, "-s", "train.seed=77", "--key", "typed-1", "-o", "name")
    first = out.strip()
    _, out, err = run("submit", spec, "-s", "train.seed=77", "--key", "typed-1", "-o", "name")
    assert out.strip() == first
    assert f"{first} was submitted with this key before; it is QUEUED" in err
    agent.carry(first)
    _, out, err = run("submit", spec, "-s", "train.seed=77", "-o", "name")
    assert out.strip() != first
    assert f"{first} has the same spec and code, and has already succeeded" in err


def carry_with_progress(agent: PlayedAgent, client: Client, name: str, ending: JobState) -> None:
    """Play a job of two steps, with a line of log, once there is one of this name."""
    until(lambda: client.jobs(name=name), f"{name} is submitted")
    lease = agent.lease(client.job(name).id)
    agent.ledger.running(lease, 1)
    for step in (1, 2):
        progress = {"phase": "train", "step": step, "total_steps": 2, "epoch": 1, "epochs": 1.0}
        agent.ledger.renew(lease, 30.0, {**progress, "metrics": {"train/loss": 0.5 / step}})
        agent.ledger.append_log(lease, 0, 7 * (step - 1), f"step {step}\n".encode())
        time.sleep(1.2)
    reason = Reason.COMPLETED if ending is JobState.SUCCEEDED else Reason.USER_ERROR
    agent.ledger.finish(lease, ending, reason, "" if ending is JobState.SUCCEEDED else "rank 0: it broke")


@pytest.mark.parametrize(("ending", "code"), [(JobState.SUCCEEDED, 0), (JobState.FAILED, 1)])
def test_following_shows_progress_and_logs_and_exits_as_the_job_did(
    run: Run, spec: str, client: Client, agent: PlayedAgent, ending: JobState, code: int
) -> None:
    name = f"followed-{ending.lower()}"
    thread = threading.Thread(target=carry_with_progress, args=(agent, client, name, ending))
    thread.start()
    exit_code, out, err = run("submit", spec, "--name", name, "--follow")
    thread.join(20)
    assert exit_code == code
    for line in ("QUEUED", "STARTING", "RUNNING", "[rank 0] step 1", "[rank 0] step 2", "step 2/2", str(ending)):
        assert line in err
    assert re.search(rf"^state +{ending}", out, re.MULTILINE)
    assert ("rank 0: it broke" in out) == bool(code)


def test_following_goes_on_over_a_restart_of_the_server(
    spec: str, own_server: RestartableServer, capsys: pytest.CaptureFixture[str]
) -> None:
    codes: list[int] = []
    arguments = ["submit", spec, "--follow", "--server", own_server.url]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EPOCHAL_TOKEN", own_server.token)
        thread = threading.Thread(target=lambda: codes.append(main(arguments)))
        thread.start()
        with own_server.client() as client:
            until(client.jobs, "it is submitted")
        time.sleep(0.5)
        own_server.stop()
        time.sleep(1.5)
        own_server.start()
        PlayedAgent(own_server).carry("small", "said after the restart\n")
        thread.join(20)
    assert codes == [0]
    told = capsys.readouterr().err
    for line in ("does not answer; trying again", "answers again", "[rank 0] said after the restart"):
        assert told.count(line) == 1


def test_waiting_for_several(run: Run, tmp_path: Path, client: Client, agent: PlayedAgent) -> None:
    names = ["one-of-two", "two-of-two"]
    files = [written(tmp_path / f"{name}.yaml", name=name) for name in names]

    def carry() -> None:
        until(lambda: all(client.jobs(name=name) for name in names), "both are submitted")
        agent.carry(client.job(names[1]).id, "said\n")
        client.stop(client.job(names[0]).id)

    thread = threading.Thread(target=carry)
    thread.start()
    code, out, err = run("submit", *files, "--wait", "-o", "json")
    thread.join(20)
    assert code == 1
    assert [job["state"] for job in json.loads(out)] == ["STOPPED", "SUCCEEDED"]
    assert "said" not in err


def test_ctrl_c_detaches_and_the_job_goes_on(spec: str, client: Client) -> None:
    command = [*EPOCHAL, "submit", spec, "--no-check", "--name", "left-alone", "--follow"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
    assert process.stderr is not None
    assert "left-alone" in process.stderr.readline()
    assert "QUEUED" in process.stderr.readline(), "it follows"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    job = client.job("left-alone")
    assert process.returncode == 130
    assert f"come back with `epochal logs -f {job.id}`, end it with `epochal stop {job.id}`" in err
    assert "Traceback" not in err
    assert job.state is JobState.QUEUED


def test_jobs_in_every_format(run: Run, submit: Submit) -> None:
    job = submit("name=listed", "priority=88")
    code, out, _ = run("jobs", "--name", "listed", "--state", "queued", "--mine")
    assert code == 0
    assert out.splitlines()[0].split() == ["ID", "STATE", "PROGRESS", "WAITED", "RAN", "SUBMITTED", "BY", "MESSAGE"]
    assert out.splitlines()[1].startswith(f"{job.id}  QUEUED")
    assert json.loads(run("jobs", "--name", "listed", "-o", "json")[1])[0]["priority"] == 88
    assert yaml.safe_load(run("jobs", "--name", "listed", "-o", "yaml")[1])[0]["id"] == job.id
    assert run("jobs", "--name", "listed", "-o", "name")[1] == f"{job.id}\n"
    assert run("jobs", "--name", "no-such-name")[1:] == ("", "no jobs\n")
    assert run("jobs", "--mine", "--user", "x")[0] == 2


def test_what_waits_and_why(run: Run, submit: Submit, agent: PlayedAgent, client: Client) -> None:
    agent.appear(cpus=2.0)
    job = submit("name=too-big-typed", "resources.workers=9", "priority=100", "queue=heavy")
    code, out, _ = run("jobs", "--waiting", "--queue", "heavy")
    assert (code, out.splitlines()[1].split()[:4]) == (0, [job.id, "1", "100", "heavy"])
    assert "can never fit" in out
    code, out, _ = run("why", job.id)
    assert code == 0
    assert "can never fit" in out
    assert re.search(r"^to start it +resources\.workers=2$", out, re.MULTILINE)
    assert json.loads(run("why", job.id, "-o", "json")[1])["kind"] == "NEVER_FITS"
    assert "can never fit" in run("status", job.id)[2]
    client.stop(job.id)


def test_status_of_a_job_and_of_everything(run: Run, submit: Submit, agent: PlayedAgent) -> None:
    agent.appear()
    job = submit("name=looked-at")
    lease = agent.lease(job.id)
    agent.ledger.running(lease, 1)
    told = {"phase": "train", "step": 30, "total_steps": 120, "epoch": 1, "epochs": 4.0, "metrics": {"val/loss": 0.25}}
    agent.ledger.renew(lease, 30.0, told)
    _, out, _ = run("status", "looked-at")
    for line in (r"state +RUNNING", r"progress +\[######-+\] 30/120 steps, epoch 1/4", r"val/loss +0\.25", r"1 +live"):
        assert re.search(line, out), out
    assert json.loads(run("status", job.id, "-o", "json")[1])["attempts"][0]["agent"] == "played/one"
    agent.ledger.running(lease, 2)
    assert json.loads(run("status", job.id, "-o", "json")[1])["resized"] == ["1 -> 2"]
    assert re.search(r"^resized +1 -> 2$", run("status", job.id)[1], re.MULTILINE)
    agent.ledger.finish(lease, JobState.FAILED, Reason.OUT_OF_MEMORY, "rank 0: too big\nand more")
    assert "FAILED (OUT_OF_MEMORY)" in run("status", job.id)[1]
    code, out, _ = run("status")
    assert code == 0
    assert re.search(r"^played +yes +.* ago +1 +4 CPU", out, re.MULTILINE), out
    assert json.loads(run("status", "-o", "json")[1])["role"] == "admin"


def test_logs_by_rank_and_tail(run: Run, submit: Submit, agent: PlayedAgent) -> None:
    job = submit("name=said-things")
    assert run("logs", job.id) == (0, "", "its workers have printed nothing\n")
    lease = agent.lease(job.id)
    agent.ledger.running(lease, 2)
    agent.ledger.append_log(lease, 0, 0, b"a\n10%\r\x1b[32m20%\x1b[0m\nlast\n")
    agent.ledger.append_log(lease, 1, 0, b"b\nno newline")
    agent.ledger.finish(lease, JobState.SUCCEEDED, Reason.COMPLETED)
    lines = ["[rank 0] a", "[rank 0] 20%", "[rank 0] last", "[rank 1] b", "[rank 1] no newline"]
    assert run("logs", job.id)[1].splitlines() == lines
    assert run("logs", job.id, "-f")[1].splitlines() == lines
    assert run("logs", job.id, "--rank", "0", "--tail", "1")[1] == "last\n"
    shown = [json.loads(line) for line in run("logs", job.id, "--rank", "1", "-o", "json")[1].splitlines()]
    assert shown[0] == {"attempt": 1, "rank": 1, "text": "b"}


def test_events_at_once_and_as_they_come(run: Run, submit: Submit, agent: PlayedAgent, client: Client) -> None:
    job = submit("name=happened")
    client.pause(job.id, "for lunch")
    client.resume(job.id)
    agent.carry(job.id)
    kinds = [event["kind"] for event in json.loads(run("events", job.id, "-o", "json")[1])]
    assert kinds == ["submitted", "pause_requested", "resumed", "leased", "running", "succeeded"]
    assert "for lunch" in run("events", job.id)[1]
    code, out, _ = run("events", job.id, "-f")
    assert (code, len(out.splitlines())) == (0, len(kinds))
    assert [json.loads(line)["kind"] for line in run("events", job.id, "-f", "-o", "json")[1].splitlines()] == kinds


def test_stop_pause_resume_retry(run: Run, submit: Submit, client: Client) -> None:
    job, other = submit("name=typed-a"), submit("name=typed-b")
    code, out, _ = run("pause", job.id, other.id, "-m", "both", "--wait")
    assert code == 0
    assert re.search(rf"^{job.id} +PAUSED +both$", out, re.MULTILINE)
    assert client.job(other.id).message == "both"
    assert run("resume", job.id, "-o", "name")[1] == f"{job.id}\n"
    assert run("stop", job.id, "--wait")[0] == 0
    code, out, err = run("resume", job.id, other.id)
    assert (code, out.split()[-2:]) == (4, [other.id, "QUEUED"])
    assert "is STOPPED, not PAUSED" in err
    again = run("retry", job.id, "-o", "name")[1].strip()
    assert client.job(again).origin["retry_of"] == job.id
    assert run("stop", "no-such-job")[0] == 3


def test_a_stop_says_its_grace_which_a_later_one_shortens(run: Run, submit: Submit, agent: PlayedAgent) -> None:
    lease = agent.lease(submit("name=typed-grace").id)
    agent.ledger.running(lease, 1)
    for options, grace in (([], 30), (["--grace", "5s"], 5), (["--grace", "1m"], 5), (["--now"], 0)):
        code, out, _ = run("stop", lease.job_id, *options, "-o", "json")
        (told,) = json.loads(out)
        assert (code, told["state"], told["grace"]) == (0, "STOPPING", grace)
    agent.ledger.stopped(lease, "rank 0: killed")
    assert re.search(r"STOPPED +rank 0: killed$", run("stop", lease.job_id)[1], re.MULTILINE)


def test_errors_say_what_to_do_and_exit_as_documented(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, err = run("status", "no-such-job")
    assert (code, "error: no job is named 'no-such-job'" in err) == (3, True)
    code, _, err = run("jobs", "--server", "http://127.0.0.1:9")
    assert code == 5
    assert "epochal up" in err
    monkeypatch.setenv("EPOCHAL_TOKEN", "ep_wrong")
    code, _, err = run("jobs")
    assert code == 5
    assert "epochal login" in err
    code, _, err = run("jobs", "-o", "json")
    assert json.loads(err)["error"]["type"] == "AuthError"


def test_login_config_and_contexts(
    run: Run, server: RestartableServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("EPOCHAL_SERVER", "EPOCHAL_TOKEN"):
        monkeypatch.delenv(name)
    assert run("jobs")[0] == 5
    kept = tmp_path / "token"
    kept.write_text(server.token)
    code, out, err = run("login", server.url, "--token-file", str(kept), "--name", "here")
    assert (code, out) == (0, "here\n")
    assert "(admin)" in err
    assert Config.load(home().config).current == "here"
    assert run("jobs")[0] == 0
    shown = json.loads(run("config", "show", "-o", "json")[1])
    assert (shown["server"], shown["named_by"], shown["has_token"]) == (server.url, "context here", True)
    for arguments in (["config", "list"], ["config", "list", "-o", "json"], ["config", "show", "-o", "yaml"]):
        assert server.token not in "".join(run(*arguments)[1:])
    assert run("config", "use", "nowhere")[0] == 3
    assert run("config", "use", "here")[0] == 0
    assert run("config", "remove", "here")[0] == 0
    assert run("jobs")[0] == 5


def test_login_with_a_wrong_token_stores_nothing(run: Run, server: RestartableServer, tmp_path: Path) -> None:
    wrong = tmp_path / "token"
    wrong.write_text("ep_wrong")
    assert run("login", server.url, "--token-file", str(wrong))[0] == 5
    assert not home().config.exists()


def test_tokens_and_quotas(run: Run, client: Client) -> None:
    code, secret, _ = run("token", "create", "carla", "--role", "viewer", "--name", "desk", "--ttl", "30d")
    assert (code, secret.startswith("ep_")) == (0, True)
    listed = next(token for token in json.loads(run("token", "list", "-o", "json")[1]) if token["user"] == "carla")
    assert (listed["role"], listed["name"]) == ("viewer", "desk")
    assert secret.strip() not in run("token", "list")[1]
    assert run("token", "revoke", listed["id"])[0] == 0
    assert client.tokens()[-1].revoked_at or any(one.id == listed["id"] and one.revoked_at for one in client.tokens())
    assert run("token", "create", "carla", "--ttl", "soon")[0] == 2
    assert run("quota", "set", "user", "carla", "--jobs", "2", "--gpus", "1")[0] == 0
    assert "user/carla" in run("quota", "list", "-o", "name")[1]
    assert run("quota", "set", "user", "carla")[0] == 2
    assert run("quota", "delete", "user", "carla")[0] == 0


def test_commands_load_nothing_of_the_cluster_s(submit: Submit, agent: PlayedAgent, tmp_path: Path, spec: str) -> None:
    job = submit("name=light")
    agent.carry(job.id, "said\n")
    paused = submit("name=light-paused")
    kept = tmp_path / "token"
    kept.write_text(os.environ["EPOCHAL_TOKEN"])
    commands = [
        ["submit", spec, "--no-check"], ["submit", spec, "--dry-run"], ["jobs"], ["jobs", "--waiting"], ["status"],
        ["status", job.id], ["why", job.id], ["logs", job.id, "-f"], ["events", job.id, "-f"], ["pause", paused.id],
        ["resume", paused.id], ["stop", paused.id], ["retry", paused.id],
        ["login", os.environ["EPOCHAL_SERVER"], "--token-file", str(kept)], ["config", "list"], ["config", "show"],
        ["token", "list"], ["quota", "list"],
    ]  # fmt: skip
    probe = [sys.executable, "-c", PROBE, json.dumps(commands)]
    result = subprocess.run(probe, capture_output=True, text=True, check=False, env=os.environ)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["codes"] == [0] * len(commands), result.stderr
    assert not HEAVY & set(report["loaded"])
