"""`epochal validate`, `schema` and `version`."""

from __future__ import annotations

import io
import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from jsonschema import Draft202012Validator

from epochal import __version__
from epochal.agent.summary import Summary
from epochal.cli.commands import job_actions, submit
from epochal.cli.commands.run import described
from epochal.cli.main import main
from epochal.cli.render import Output
from epochal.client import Client
from epochal.client.contexts import Config, Context
from epochal.errors import UnreachableError
from epochal.settings import home
from epochal.spec import load_spec

SWEEP = str(Path(__file__).parents[3] / "jobs" / "sweeps" / "tpe-asha.yaml")
GOOD = "version: 1\nname: a-job\nmodel: {name: cnn}\ndata: {name: digits}\ntrain: {epochs: 1}\n"
WRONG = """\
version: 1
name: A Job
model: {name: cn}
data: {name: digits, parms: {}}
train: {epochs: 1, optimizer: {name: adamw, weight_decay: much}}
priority: 500
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.yaml").write_text(GOOD)
    (tmp_path / "wrong.yaml").write_text(WRONG)


@pytest.mark.usefixtures("files")
def test_a_good_spec_is_ok(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "good.yaml"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "good.yaml: ok (a-job)\n"
    assert shown.err == ""


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("stop a-job --grace 5", "expected a duration with its unit"),
        ("pause a-job --grace -5s", "expected a duration with its unit"),
        ("stop a-job --grace=", "expected a duration with its unit"),
        ("run good.yaml --grace nan", "expected a duration with its unit"),
        ("stop a-job --grace 2d", "expected at most 1d"),
        ("stop a-job --grace 5s --now", "--now is --grace 0s: give one of them"),
        ("pause a-job --now --grace 0s", "--now is --grace 0s: give one of them"),
        ("resume a-job --now", "No such option"),
        ("quota set user ada --cpus nan", "nan is not a finite number"),
        ("quota set user ada --gpus inf", "inf is not a finite number"),
        ("runs sync --timeout nan", "nan is not a finite number"),
        ("run --resume a-job --dry-run", "--dry-run is for a FILE"),
        ("validate - -", "standard input can be read once"),
    ],
)
@pytest.mark.usefixtures("files")
def test_an_option_that_cannot_be_is_refused(command: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command.split()) == 2
    assert told in capsys.readouterr().err


@pytest.mark.usefixtures("files")
def test_every_problem_of_every_file_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "good.yaml", "wrong.yaml", "missing.yaml"]) == 2
    shown = capsys.readouterr()
    assert shown.out == "good.yaml: ok (a-job)\n"
    starts = [
        "wrong.yaml:2:7: name: ",
        "wrong.yaml:3:15: model.name: ",
        "wrong.yaml:4:22: data.parms: ",
        "wrong.yaml:5:59: train.optimizer.weight_decay: ",
        "wrong.yaml:6:11: priority: ",
        "missing.yaml: cannot be read: No such file or directory",
    ]
    lines = shown.err.splitlines()
    assert len(lines) == len(starts)
    assert all(line.startswith(start) for line, start in zip(lines, starts, strict=True)), shown.err


@pytest.mark.usefixtures("files")
def test_json_is_data_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "good.yaml", "wrong.yaml", "-o", "json"]) == 2
    shown = capsys.readouterr()
    good, wrong = json.loads(shown.out)["specs"]
    assert shown.err == ""
    assert good == {"file": "good.yaml", "valid": True, "name": "a-job", "problems": []}
    assert [one["line"] for one in wrong["problems"]] == [2, 3, 4, 5, 6]


def test_a_sweep_is_valid(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", SWEEP]) == 0
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == (f"{SWEEP}: ok (digits-tpe-asha)\n", "")


def test_a_sweep_is_shown_resolved(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", SWEEP, "--dry-run"]) == 0
    assert "failure_budget: 3" in capsys.readouterr().out


@pytest.mark.usefixtures("files")
def test_overrides_are_checked_with_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "good.yaml", "-s", "train.epochs=2", "--set", "priority=1"]) == 0
    assert main(["validate", "good.yaml", "-s", "train.epoch=2"]) == 2
    assert capsys.readouterr().err == "--set: train.epoch: there is no such field (did you mean 'epochs'?)\n"


def test_a_dash_is_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(GOOD.encode())))
    assert main(["validate", "-"]) == 0
    assert capsys.readouterr().out == "stdin: ok (a-job)\n"


def test_the_schema_is_printed_or_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    shown = capsys.readouterr().out
    Draft202012Validator.check_schema(json.loads(shown))
    file = tmp_path / "schema.json"
    assert main(["schema", "--file", str(file)]) == 0
    assert file.read_text() == shown
    assert f"# yaml-language-server: $schema={file}" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["schema.json"]


def test_a_schema_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "--file", "/dev/null/schema.json"]) == 5
    assert "/dev/null" in capsys.readouterr().err
    long = tmp_path / f"{'x' * 250}.json"
    assert main(["schema", "--file", str(long)]) == 0, "a draft of a longer name would be refused"


def test_versions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version", "-o", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["epochal"] == __version__
    assert shown["python"] == platform.python_version()
    assert {name: shown[name] for name in ("torch", "ray", "mlflow")} == {
        name: version(name) for name in ("torch", "ray", "mlflow")
    }
    assert main(["version"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"epochal  {__version__}"


def test_the_best_point_of_a_sweep_over_models_is_told_beside_the_model_it_left() -> None:
    summary = Summary(
        job="s-1", state="SUCCEEDED", reason="", message="", attempts=1, seconds=1.0, run_id="", tracking_uri="",
        experiment="", trial=3, point={"model": {"name": "cnn"}, "train.seed": 1}, model="/jobs/s-1/model",
    )  # fmt: skip
    shown = described(summary)
    assert (shown["model"], shown["point"]) == (summary.model, summary.point)


def test_a_login_leaves_another_server_of_the_same_host_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    """It took its place, and the token of the other one was lost."""
    first = Context("example.org", "https://example.org:8700", "ep_first")
    Config().having(first).save(home().config)
    assert main(["login", "https://example.org", "--token-file", "/dev/null"]) == 4
    assert "example.org is https://example.org:8700 already" in capsys.readouterr().err
    assert Config.load(home().config).contexts == {"example.org": first}
    assert main(["login", "https://example.org", "--token-file", "/dev/null", "--name", "second"]) == 2
    assert "holds no token" in capsys.readouterr().err, "by another name it goes on"


class _Interrupted:
    """A client that is broken off in its second request."""

    def __init__(self, error: BaseException) -> None:
        self._error = error
        self._asked = 0

    def stop(self, ref: str) -> Any:
        self._asked += 1
        if self._asked > 1:
            raise self._error
        return SimpleNamespace(id=f"{ref}-1", created=True, same_as=None)

    def submit(self, submission: str, key: str | None) -> Any:
        return self.stop(submission)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), UnreachableError("no answer")], ids=["ctrl-c", "server"])
def test_what_was_done_before_a_command_is_broken_off_is_told(
    error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(type(error)):
        job_actions._each(["a", "b"], _Interrupted(error).stop, Output.TABLE)
    assert capsys.readouterr().err == "done before this: a-1\n"
    with pytest.raises(type(error)):
        submit._submit(cast(Client, _Interrupted(error)), cast(Any, ["a", "b"]), None)
    assert capsys.readouterr().err == "queued before this: a-1\n"


def test_data_of_a_user_that_is_not_here_is_not_here(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(GOOD.replace("digits", 'csv, params: {path: "~nobody-here/a.csv", target: a}'))
    assert submit._out_of_reach(load_spec(tmp_path / "job.yaml")) == "~nobody-here/a.csv is not on this machine"
