"""How the problems of single fields read."""

from __future__ import annotations

import re

import pytest
from spec_texts import FULL, SMALL, problem, problems

from epochal.spec import JobSpec


def with_train(fields: str) -> str:
    return SMALL.replace("{epochs: 5}", f"{{epochs: 5, {fields}}}")


@pytest.mark.parametrize(
    ("text", "path", "line", "column", "message", "hint"),
    [
        (with_train("precision: fp61"), "train.precision", 5, 31,
         "expected one of fp32, bf16 or fp16, got 'fp61'", "did you mean 'fp16'?"),
        (with_train("optimzer: {}"), "train.optimzer", 5, 20, "there is no such field", "did you mean 'optimizer'?"),
        (with_train("lr: 1"), "train.lr", 5, 20, "there is no such field", "it belongs at train.optimizer.lr"),
        (with_train("batch_size: 1"), "train.batch_size", 5, 20, "there is no such field",
         "did you mean 'micro_batch_size' or 'global_batch_size' or 'batch_norm'?"),
        (with_train("steps: '5'"), "train.steps", 5, 27, "expected a whole number, got '5'", "remove the quotes"),
        (with_train("seed: 5.0"), "train.seed", 5, 26, "expected a whole number, got 5.0", "write 5"),
        (with_train("seed: true"), "train.seed", 5, 26, "expected a whole number, got true", ""),
        (with_train("seed: -1"), "train.seed", 5, 26, "expected at least 0, got -1", ""),
        (with_train("compile: yes"), "train.compile", 5, 29, "expected true or false, got 'yes'", "write true"),
        (with_train("optimizer: {lr: 0}"), "train.optimizer.lr", 5, 36, "expected more than 0, got 0", ""),
        (with_train("optimizer: sgd"), "train.optimizer", 5, 31,
         "expected a mapping of fields, got 'sgd'", "write {name: sgd}"),
        (with_train("validate_every: 3"), "train.validate_every", 5, 36,
         "expected an interval: epochs (1ep, 0.5ep), steps (500steps) or time (10m), got 3", ""),
        (with_train("freeze: [a, 2]"), "train.freeze.1", 5, 32, "expected text, got 2", "put it in quotes"),
        (with_train("early_stopping: {metric: val/loss}"), "train.early_stopping.mode", 5, 20,
         "is required", "Whether lower or higher is better"),
        (SMALL + "batch_size: 5", "batch_size", 6, 1, "there is no such field",
         "did you mean train.micro_batch_size or train.global_batch_size?"),
        (SMALL + "freeze: []", "freeze", 6, 1, "there is no such field", "it belongs at train.freeze"),
        (SMALL + "priority: 500", "priority", 6, 11, "expected at most 100, got 500", ""),
        (SMALL + "resources: {workers: two}", "resources.workers", 6, 22,
         "expected a whole number, got 'two'", "or a section with min and max"),
        (SMALL + "resources: {workers: {min: 1, mx: 2, max: 3}}", "resources.workers.mx", 6, 31,
         "there is no such field", "did you mean 'max'?"),
        (SMALL + "resources: {memory_per_worker: 2}", "resources.memory_per_worker", 6, 32,
         "expected a size with its unit, such as 512MiB or 2GiB, got 2", ""),
        (SMALL + "limits: {max_duration: 2 hours}", "limits.max_duration", 6, 24,
         "expected a duration with its unit, such as 90s, 10m, 1h30m or 2d, got '2 hours'", ""),
        (SMALL + "env: {1A: x}", "env.1A", 6, 7,
         "expected a variable's name: letters, digits and underscores, not starting with a digit, got '1A'", ""),
        (SMALL + "env: {'[key]': x}", "env.[key]", 6, 7,
         "expected a variable's name: letters, digits and underscores, not starting with a digit, got '[key]'", ""),
        (SMALL + "'[key]': x", "[key]", 6, 1, "there is no such field",
         f"known: {', '.join(sorted(JobSpec.model_fields))}"),
        (SMALL + "env: {A: 1}", "env.A", 6, 10, "expected text, got 1", "put it in quotes"),
        (SMALL + "tags: []", "tags", 6, 7, "expected a mapping, got an empty list", ""),
        (SMALL + "code: {dir: ../up}", "code.dir", 6, 13,
         "expected a folder at or below the spec's own, such as . or src, got '../up'", ""),
        (SMALL + "objective: {metric: 'a b', mode: max}", "objective.metric", 6, 21,
         "expected a metric's name such as val/accuracy, got 'a b'", ""),
        (SMALL.replace("digits-cnn", "Digits"), "name", 2, 7,
         "expected lower-case letters, digits and dashes between them, at most 63 characters, got 'Digits'", ""),
        (SMALL.replace("version: 1", "version: 2"), "version", 1, 10, "expected 1, got 2", ""),
        (SMALL.replace("{name: cnn}", "cnn"), "model", 3, 8,
         "expected a mapping of fields, got 'cnn'", "write {name: cnn}"),
        (SMALL.replace("{name: cnn}", "{name: cnn, channels: 3}"), "model.channels", 3, 20,
         "there is no such field", "parameters go under model.params.channels"),
        (SMALL.replace("{epochs: 5}", "null"), "train", 5, 8, "expected a mapping of fields, got null", ""),
        (SMALL.replace("data: {name: digits}\n", ""), "data", 1, 1, "is required", "The dataset"),
        (SMALL.replace("{name: digits}", "{}"), "data.name", 4, 1, "is required",
         "A name that `epochal models|datasets|tasks` lists, or `module:Class` from your own `code.dir`"),
    ],
)  # fmt: skip
def test_one_mistake_is_one_problem(text: str, path: str, line: int, column: int, message: str, hint: str) -> None:
    found = problem(text)
    assert (found.path, found.line, found.column, found.message, found.hint) == (path, line, column, message, hint)


@pytest.mark.parametrize(
    ("space", "path", "told"),
    [
        ("{}", "sweep.space", "expected at least 1 entry, got an empty mapping"),
        ("{train.seed: null}", "sweep.space.train.seed", "expected {choice: [...]}, {value: ...}, {dist: loguniform"),
        ("{train.seed: {dist: gamma}}", "sweep.space.train.seed", "expected {choice: [...]}, {value:"),
        ("{train.seed: {dist: normal, mean: 1}}", "sweep.space.train.seed.sigma", "is required"),
        ("{train.seed: {dist: [1]}}", "sweep.space.train.seed", "expected {choice: [...]}, {value:"),
        ("{train.seed: {choice: []}}", "sweep.space.train.seed.choice", "expected at least 1 entry, got an empty list"),
        ("{train.seed: {dist: int, low: 1}}", "sweep.space.train.seed.high", "is required"),
        (
            "{train.seed: {dist: int, low: x, high: 3}}",
            "sweep.space.train.seed.low",
            "expected a whole number, got 'x'",
        ),
    ],
)
def test_members_of_a_union_are_told_apart(space: str, path: str, told: str) -> None:
    text = f"{SMALL}objective: {{metric: val/accuracy, mode: max}}\nsweep: {{space: {space}}}\n"
    found = problem(text)
    assert (found.path, found.line) == (path, 7)
    assert told in found.message


def test_no_message_speaks_of_pydantic() -> None:
    """Every value of a full spec replaced by one of a wrong type, one line after the other."""
    jargon = re.compile(
        r"pydantic|Input should|dictionary|instance of|NoneType|value_error|constrained|Section|\[key\]"
    )
    for wrong in ("{odd: 1}", "[1]", "'odd text'", "-3.5", "null"):
        for line in FULL.splitlines():
            key, colon, _ = line.partition(": ")
            if colon:
                text = FULL.replace(f"{line}\n", f"{key}: {wrong}\n")
                told = _all_told(text)
                assert not jargon.search(told), told


def _all_told(text: str) -> str:
    try:
        return "\n".join(map(str, problems(text)))
    except pytest.fail.Exception:
        return ""


_KINDS = (
    "expected {choice: [...]}, {value: ...}, {dist: loguniform|uniform|int, low: ..., high: ...}"
    " or {dist: normal|lognormal, mean: ..., sigma: ...}, got "
)


@pytest.mark.parametrize(
    ("fields", "path", "message", "hint"),
    [
        ("pack: 1", "pack", "expected auto, off or a whole number from 2 to 1024, got 1", ""),
        ("pack: fast", "pack", "expected auto, off or a whole number from 2 to 1024, got 'fast'", ""),
        ("space: {train.seed: {dist: unifrom, low: 0}}", "space.train.seed",
         f"{_KINDS}a mapping (dist, low)", "did you mean 'uniform' or 'loguniform'?"),
        ("space: {train.seed: {chioce: [1]}}", "space.train.seed",
         f"{_KINDS}a mapping (chioce)", "did you mean 'choice'?"),
    ],
    ids=range(4),
)  # fmt: skip
def test_one_mistake_in_a_sweep_is_one_problem(fields: str, path: str, message: str, hint: str) -> None:
    space = "" if "space" in fields else ", space: {train.seed: 1}"
    found = problem(SMALL + f"objective: {{metric: val/loss, mode: min}}\nsweep: {{{fields}{space}}}\n")
    assert (found.path, found.message, found.hint) == (f"sweep.{path}", message, hint)
