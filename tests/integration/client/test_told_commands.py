"""What hints, pages and documents tell somebody to type is run, against a server with jobs in every state."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from code_base import ROOT
from markdown import DOCUMENTS, commands
from restartable_server import SPEC, PlayedAgent, RestartableServer
from told_commands import SOURCES, commands_in

from epochal.client import Client
from epochal.ledger.states import JobState, Reason
from epochal.ledger.values import Job

Told = tuple[int, str, str]
Run = Callable[..., Told]

QUEUED, STARTING, RUNNING, STOPPING, PAUSED, SUCCEEDED, FAILED, STOPPED = JobState
ENDED = (SUCCEEDED, FAILED, STOPPED)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestartableServer]:
    """One that no agent has come to."""
    running = RestartableServer(tmp_path_factory.mktemp("told"))
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def agent(server: RestartableServer) -> Iterator[PlayedAgent]:
    played = PlayedAgent(server)
    with closing(played.ledger):
        yield played


@pytest.fixture(scope="module")
def client(server: RestartableServer) -> Iterator[Client]:
    with server.client() as connected:
        yield connected


@pytest.fixture(autouse=True)
def _in_a_folder_with_specs(connected: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for folder in ("jobs", "cluster"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(SPEC))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def job_in(client: Client, agent: PlayedAgent) -> Callable[[JobState], str]:
    """A new job in this state."""

    def brought(state: JobState) -> str:
        job = client.submit({**SPEC, "name": f"told-{state.lower()}"}).job.id
        if state is QUEUED:
            return job
        if state is PAUSED:
            return client.pause(job).id
        if state is STOPPED:
            return client.stop(job).id
        lease = agent.lease(job)
        if state is STARTING:
            return job
        agent.ledger.running(lease, 1)
        agent.ledger.append_log(lease, 0, 0, b"said\n")
        if state is STOPPING:
            client.stop(job)
        elif state is SUCCEEDED:
            agent.ledger.finish(lease, state, Reason.COMPLETED)
        elif state is FAILED:
            agent.ledger.finish(lease, state, Reason.USER_ERROR, "rank 0: it broke")
        return job

    return brought


def told_in(*texts: str) -> list[str]:
    """The commands that a message tells, without the program's name."""
    return [told for text in texts for told in re.findall(r"`epochal ([^`]+)`", text)]


EFFECTS: dict[str, Callable[[Client, Job], bool]] = {
    "resume": lambda client, job: client.job(job.id).state is QUEUED,
    "stop": lambda client, job: client.job(job.id).state in (STOPPING, STOPPED),
    "retry": lambda client, job: any(
        client.job(one.id).origin.get("retry_of") == job.id for one in client.jobs(name=job.name)
    ),
}
CHANGES: dict[tuple[str, JobState], list[str]] = {
    ("why", PAUSED): ["resume"],
    ("retry", PAUSED): ["resume", "stop"],
    **{("retry", state): ["stop"] for state in (QUEUED, STARTING, RUNNING, STOPPING)},
    **{(verb, state): ["retry"] for verb in ("why", "resume") for state in ENDED},
    **{(verb, QUEUED): ["agent", "up", "doctor"] for verb in ("why", "status")},
}
"""What a command on a job in some state tells to type; what is not here tells nothing."""


@pytest.mark.parametrize("state", JobState, ids=str.lower)
@pytest.mark.parametrize("verb", ["status", "why", "logs", "events", "stop", "pause", "resume", "retry"])
def test_what_a_command_on_a_job_tells_to_type_does_what_it_says(
    verb: str, state: JobState, run: Run, client: Client, job_in: Callable[[JobState], str]
) -> None:
    job = client.job(job_in(state))
    told = told_in(*run(verb, job.id)[1:])
    assert [one.split()[0] for one in told] == CHANGES.get((verb, state), [])
    for one in told:
        if one in ELSEWHERE:
            continue
        assert shlex.split(one)[1:] == [job.id], "it can be typed as it stands"
        code, _, err = run(*shlex.split(one))
        assert code == 0, err
        assert EFFECTS[one.split()[0]](client, job)


def test_a_refusal_of_a_job_that_is_elsewhere_names_what_can_be_typed(
    run: Run, client: Client, job_in: Callable[[JobState], str]
) -> None:
    jobs = [job_in(state) for state in (SUCCEEDED, FAILED)]
    code, _, err = run("resume", *jobs)
    assert (code, told_in(err)) == (4, [f"retry {job}" for job in jobs])


Sentence = tuple[str, int, list[str]]
SENTENCES: dict[str, Sentence] = {
    "submitted": ("submit job.yaml --no-check", 0, ["logs -f {newest}"]),
    "no such job": ("status no-such-job", 3, []),
    "no name of a job": ("status .", 2, ["jobs"]),
    "no id of a token": ("token revoke .", 2, ["token list"]),
    "no limits": ("quota set user carla", 2, ["quota delete user carla"]),
    "wrong option": ("jobs --nonsense", 2, ["jobs --help"]),
    "wrong option of a group's": ("token create --nonsense", 2, ["token create --help"]),
    "no spec": ("run", 2, ["run FILE"]),
    "wrong spec": ("submit wrong.yaml --no-check", 2, ["schema", "validate FILE"]),
    "no token": ("login {url} --token-file /dev/null", 2, []),
    "cut list": ("jobs --limit 1", 0, []),
    "nobody there": ("jobs --server http://127.0.0.1:9", 5, ["up", "config show"]),
    "unknown token": ("jobs", 5, ["login", "token create USER"]),
    "unknown context": ("jobs --context nowhere", 3, ["login"]),
}


@pytest.mark.parametrize("sentence", SENTENCES.values(), ids=SENTENCES)
def test_what_a_message_tells_to_type_can_be_typed(
    sentence: Sentence,
    run: Run,
    client: Client,
    server: RestartableServer,
    monkeypatch: pytest.MonkeyPatch,
    job_in: Callable[[JobState], str],
) -> None:
    typed, code, told = sentence
    job_in(SUCCEEDED)
    Path("wrong.yaml").write_text("version: 1\nmodle: {}\n")
    if "login" in told:
        monkeypatch.setenv("EPOCHAL_TOKEN", "ep_wrong")
    if "--context" in typed:
        monkeypatch.delenv("EPOCHAL_SERVER")
    found, out, err = run(*shlex.split(typed.format(url=server.url)))
    newest = client.jobs(limit=1)[0].id
    assert (found, told_in(err)) == (code, [one.format(newest=newest) for one in told]), (out, err)
    monkeypatch.setenv("EPOCHAL_SERVER", server.url)
    monkeypatch.setenv("EPOCHAL_TOKEN", server.token)
    if "quota delete user carla" in told:
        assert run("quota", "set", "user", "carla", "--jobs", "1")[0] == 0
    for one in told:
        if one.split()[0] not in ("up", "login", "run", "logs"):
            words = [{"FILE": "job.yaml", "USER": "carla"}.get(word, word) for word in shlex.split(one)]
            assert run(*words)[0] == 0, one


def test_the_rest_of_a_list_is_what_its_message_says(
    run: Run, job_in: Callable[[JobState], str], client: Client
) -> None:
    for _ in range(3):
        job_in(QUEUED)
    for listed in (["jobs"], ["jobs", "--waiting"], ["jobs", "--state", "QUEUED"]):
        _, out, err = run(*listed, "--limit", "1", "-o", "name")
        total, rest = re.fullmatch(r"1 of (\d+) are shown; the rest: (.+)\n", err).groups()  # type: ignore[union-attr]
        assert len(out.split()) == 1
        _, out, err = run(*listed, *shlex.split(rest), "-o", "name")
        assert (len(out.split()), err) == (int(total), "")


def test_a_login_as_it_is_told_makes_commands_go_there(
    run: Run, server: RestartableServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("EPOCHAL_SERVER", "EPOCHAL_TOKEN"):
        monkeypatch.delenv(name)
    assert told_in(run("jobs")[2]) == ["up", "login"]
    (tmp_path / "token").write_text(server.token)
    assert run("login", server.url, "--token-file", "token")[0] == 0
    assert json.loads(run("config", "show", "-o", "json")[1])["server"] == server.url
    assert run("jobs")[0] == 0


def test_who_waits_for_workers_is_told_how_long_these_have(
    run: Run, client: Client, agent: PlayedAgent, job_in: Callable[[JobState], str]
) -> None:
    lease = agent.lease(job_in(QUEUED))
    agent.ledger.running(lease, 1)
    ended = threading.Timer(0.3, agent.ledger.stopped, [lease])
    ended.start()
    code, out, err = run("stop", lease.job_id, "--grace", "5s", "--wait")
    ended.join()
    assert (code, err) == (0, f"{lease.job_id} is STOPPING: its workers have 5s to save their state\n")
    assert re.search(rf"^{lease.job_id} +STOPPED", out, re.MULTILINE)


ELSEWHERE = {
    "up": "integration/test_up.py",
    "down": "integration/test_up.py",
    "run": "integration/test_environment.py",
    "agent": "integration/agent/test_agent_service.py",
    "server": "integration/test_server_command.py",
    "ui": "integration/test_runs_commands.py",
    "runs": "integration/test_runs_commands.py",
    "plan": "unit/cli/test_cli_catalog.py",
    "db": "unit/ledger/test_db_command.py",
    "doctor": "unit/doctor/test_doctor.py",
    "sweep": "integration/client/test_sweep_commands.py",
    "cluster": "unit/cluster/test_cluster_apply.py",
}
"""Those that want a sweep or a Kubernetes, start processes, load torch, or ask MLflow or a ledger: the tests that run
them. Here they give help."""
TYPED = {
    "agent --join ADDRESS": "agent --help",
    "jobs --state QUEUED --limit X": "jobs --state QUEUED --limit 3",
    "jobs X --limit X": "jobs --state STARTING --state RUNNING --limit 3",
    "login X://X --token-file -": "login {url} --token-file token",
    "login http://127.0.0.1:8700 --token-file -": "login {url} --token-file token",
    "login URL": "login {url} --token-file token",
    "login https://epochal.example.org --name team": "login {url} --name team --token-file token",
    "models NAME": "models mlp",
    "models maxout": "models cnn",  # what the guide's reader adds, which test_worked_example.py does
    "optimizers NAME": "optimizers adamw",
    "quota delete X X": "quota set user carla --jobs 1",
    "status .": "status",  # of CHANGELOG.md, as a mistake
    "submit /etc/epochal/quickstart.yaml --wait": "submit jobs/quickstart.yaml --wait",
    "token create NAME --role agent": "token create carla --role agent",
    "token create X --role agent": "token create carla --role agent",
    "token create USER": "token create carla",
    "validate jobs/maxout.yaml": "validate jobs/quickstart.yaml",
}
"""With what somebody puts in the place of the names in capitals."""
OF_JOBS = {"pause": QUEUED, "resume": PAUSED, "retry": FAILED, "stop": QUEUED, "logs": SUCCEEDED, "events": SUCCEEDED}


def every_told_command() -> list[str]:
    found = {one for source in SOURCES for one in commands_in(source)}
    found |= {one for document in DOCUMENTS for one in commands(document) if one.startswith("epochal ")}
    told = {one.partition(" | ")[0].replace("\\|", "|").removeprefix("epochal ") for one in found}
    alternatives = {one.replace(one.split()[0], verb) for one in told for verb in one.split()[0].split("|")}
    return sorted(one for one in alternatives if not one.startswith(("...", "COMMAND", "-")))


EVERY_TOLD = every_told_command()


@pytest.mark.parametrize("told", EVERY_TOLD)
def test_every_command_that_is_told_somewhere_runs(
    told: str, run: Run, server: RestartableServer, job_in: Callable[[JobState], str], tmp_path: Path
) -> None:
    verb = told.partition(" ")[0]
    if verb in ELSEWHERE:
        assert f'"{verb}"' in (ROOT / "tests" / ELSEWHERE[verb]).read_text(encoding="utf-8")
        assert run(verb, "--help")[0] == 0
        return
    (tmp_path / "token").write_text(server.token)
    words = shlex.split(TYPED.get(told, told).format(url=server.url))
    job = job_in(OF_JOBS.get(verb, SUCCEEDED)) if {"JOB", "X"} & set(words) else ""
    words = [{"JOB": job, "X": job, "FILE": "job.yaml"}.get(word, word) for word in words]
    if verb == "submit" and {"--follow", "--wait"} & set(words):
        words.append("--dry-run")  # test_commands.py follows
    code, out, err = run(*words)
    if code == 2 and ("issing argument" in err or err.startswith("Usage: ")):  # the name of a command in a sentence
        code, out, err = run(*words, "--help")
    assert code == 0, err
    assert out or err


def test_nothing_is_explained_that_nobody_tells() -> None:
    assert not set(TYPED) - set(EVERY_TOLD)
    assert not set(ELSEWHERE) - {one.split()[0] for one in EVERY_TOLD}
