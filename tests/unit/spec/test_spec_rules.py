"""Every rule across fields: a spec that breaks it, and one nearby that does not."""

from __future__ import annotations

import pytest
from spec_texts import SMALL, load, problem, problems

from epochal.spec.rules import RULES

OBJECTIVE = "objective: {metric: val/accuracy, mode: max}\n"


def train(fields: str) -> str:
    return SMALL.replace("{epochs: 5}", f"{{{fields}}}")


def sweep(space: str, fields: str = "") -> str:
    return f"{SMALL}{OBJECTIVE}sweep: {{space: {{{space}}}{fields}}}\n"


LR = "train.optimizer.lr: {dist: loguniform, low: 1e-4, high: 1e-1}"

CASES = [
    ("one_length", train(""), "train", train("steps: 5")),
    ("one_length", train("epochs: 5, steps: 5"), "train.steps", SMALL),
    ("one_length", train(""), "train", sweep("train.epochs: {choice: [1, 2]}").replace("{epochs: 5}", "{}")),
    ("one_length", sweep("train.steps: {choice: [1, 2]}"),
     "sweep.space.train.steps", sweep("train.epochs: {choice: [1, 2]}")),
    ("a_sample_for_each_worker", train("epochs: 1, global_batch_size: 3") + "resources: {workers: 4}",
     "train.global_batch_size", train("epochs: 1, global_batch_size: 4") + "resources: {workers: 4}"),
    ("a_sample_for_each_worker", train("epochs: 1, global_batch_size: 3") + "resources: {workers: {min: 1, max: 4}}",
     "train.global_batch_size", train("epochs: 1, global_batch_size: 3") + "resources: {workers: {min: 1, max: 3}}"),
    ("micro_within_global", train("epochs: 1, micro_batch_size: 65"),
     "train.micro_batch_size", train("epochs: 1, micro_batch_size: 64")),
    ("local_norm_needs_parts", train("epochs: 1, batch_norm: local"),
     "train.batch_norm", train("epochs: 1, batch_norm: local, micro_batch_size: 8")),
    ("local_norm_needs_parts", train("epochs: 1, batch_norm: local"),
     "train.batch_norm", train("epochs: 1, batch_norm: local") + "resources: {workers: {min: 1, max: 2}}"),
    ("unused_parameters_are_ddps",
     train("epochs: 1, find_unused_parameters: true") + "resources: {workers: 2, strategy: fsdp}",
     "train.find_unused_parameters", train("epochs: 1, find_unused_parameters: true") + "resources: {workers: 2}"),
    ("best_needs_an_objective", SMALL + "checkpoint: {keep: {best: 1}}",
     "checkpoint.keep.best", SMALL + "checkpoint: {keep: {best: 0}}"),
    ("best_needs_an_objective", SMALL + "checkpoint: {keep: {best: 1}}",
     "checkpoint.keep.best", SMALL + OBJECTIVE + "checkpoint: {keep: {best: 1}}"),
    ("fsdp_needs_workers", SMALL + "resources: {strategy: fsdp}",
     "resources.strategy", SMALL + "resources: {strategy: fsdp, workers: 2}"),
    ("fp16_needs_gpus", train("epochs: 1, precision: fp16"),
     "train.precision", train("epochs: 1, precision: fp16") + "resources: {gpus_per_worker: 1}"),
    ("elastic_in_order", SMALL + "resources: {workers: {min: 3, max: 2}}",
     "resources.workers.min", SMALL + "resources: {workers: {min: 2, max: 2}}"),
    ("one_gpu_a_worker", SMALL + "resources: {gpus_per_worker: 8}",
     "resources.gpus_per_worker", SMALL + "resources: {gpus_per_worker: 1, workers: 8}"),
    ("one_gpu_a_worker", SMALL + "resources: {gpus_per_worker: 1.5}",
     "resources.gpus_per_worker", SMALL + "resources: {gpus_per_worker: 0.5}"),
    ("shared_gpu_alone", SMALL + "resources: {gpus_per_worker: 0.5, workers: {min: 1, max: 2}}",
     "resources.gpus_per_worker", SMALL + "resources: {gpus_per_worker: 0.5, workers: 1}"),
    ("some_memory", SMALL + "resources: {memory_per_worker: 0MiB}",
     "resources.memory_per_worker", SMALL + "resources: {memory_per_worker: 1MiB}"),
    ("metrics_have_a_group", SMALL + "objective: {metric: accuracy, mode: max}", "objective.metric", SMALL + OBJECTIVE),
    ("metrics_have_a_group", train("epochs: 1, early_stopping: {metric: vl/loss, mode: min}"),
     "train.early_stopping.metric", train("epochs: 1, early_stopping: {metric: train/loss, mode: min}")),
    ("one_direction", train("epochs: 1, early_stopping: {metric: val/accuracy, mode: min}") + OBJECTIVE,
     "train.early_stopping.mode", train("epochs: 1, early_stopping: {metric: val/loss, mode: min}") + OBJECTIVE),
    ("warmup_ends", train("steps: 100, lr_schedule: {warmup: 100}"),
     "train.lr_schedule.warmup", train("steps: 100, lr_schedule: {warmup: 99}")),
    ("something_is_trained", train("epochs: 1, freeze: [a.*, '*']"),
     "train.freeze.1", train("epochs: 1, freeze: [a.*, '*.bias']")),
    ("something_is_trained", train("epochs: 1, freeze: ['']"), "train.freeze.0", SMALL),
    ("time_to_run", SMALL + "limits: {max_duration: 0s}", "limits.max_duration", SMALL + "limits: {max_duration: 1s}"),
    ("time_to_run", SMALL + "limits: {max_pending: 0h}", "limits.max_pending", SMALL + "limits: {max_pending: 1s}"),
    ("time_to_run", SMALL + "limits: {no_progress: 0s}", "limits.no_progress", SMALL + "limits: {no_progress: 1s}"),
    ("plain_or_secret", SMALL + "env: {A: x}\nsecrets: [B, A]", "secrets.1", SMALL + "env: {A: x}\nsecrets: [B]"),
    ("plain_or_secret", SMALL + "secrets: [EPOCHAL_TOKEN]", "secrets.0", SMALL + "secrets: [WANDB_API_KEY]"),
    ("needs_an_objective", sweep(LR).replace(OBJECTIVE, ""), "sweep", sweep(LR)),
    ("paths_exist", sweep("train.optimzer.lr: {choice: [1]}"), "sweep.space.train.optimzer.lr", sweep(LR)),
    ("paths_exist", sweep("resources.workers: {choice: [1]}"), "sweep.space.resources.workers", sweep(LR)),
    ("paths_exist", sweep("name: {choice: [a]}"), "sweep.space.name", sweep("model.name: {choice: [cnn, mlp]}")),
    ("paths_exist", sweep("modle.name: {choice: [a]}"),
     "sweep.space.modle.name", sweep("model.params.x: {choice: [1]}")),
    ("paths_exist", sweep("train.optimizer: {dist: uniform, low: 0, high: 1}"),
     "sweep.space.train.optimizer", sweep("train.optimizer: {choice: [{name: sgd}, {name: adamw, betas: [0, 0]}]}")),
    ("paths_apart", sweep(f"train.optimizer: {{choice: [{{name: sgd}}]}}, {LR}"),
     "sweep.space.train.optimizer.lr", sweep(f"train.optimizer.momentum: {{choice: [0.1]}}, {LR}")),
    ("bounds_in_order", sweep("train.optimizer.lr: {dist: uniform, low: 2, high: 1}"),
     "sweep.space.train.optimizer.lr.high", sweep("train.optimizer.lr: {dist: uniform, low: 1, high: 2}")),
    ("bounds_in_order", sweep("train.seed: {dist: int, low: 0, high: 9, log: true}"),
     "sweep.space.train.seed.low", sweep("train.seed: {dist: int, low: 1, high: 9, log: true}")),
    ("steps_fit", sweep("train.seed: {dist: int, low: 1, high: 3, step: 3}"),
     "sweep.space.train.seed.step", sweep("train.seed: {dist: int, low: 1, high: 3, step: 2}")),
    ("steps_fit", sweep("train.seed: {dist: int, low: 1, high: 9, step: 2, log: true}"),
     "sweep.space.train.seed.step", sweep("train.seed: {dist: int, low: 1, high: 9, step: 2}")),
    ("values_fit", sweep("train.precision: {choice: [fp32, fp8]}"),
     "sweep.space.train.precision.choice.1", sweep("train.precision: {choice: [fp32, bf16]}")),
    ("values_fit", sweep("train.global_batch_size: {dist: uniform, low: 2, high: 8}"),
     "sweep.space.train.global_batch_size.low", sweep("train.global_batch_size: {dist: int, low: 2, high: 8}")),
    ("values_fit", sweep("train.optimizer: {choice: [{lr: -1}]}"),
     "sweep.space.train.optimizer.choice.0", sweep("train.optimizer: {choice: [{lr: 1}]}")),
    ("grid_is_finite", sweep(LR, ", search: {name: grid}"), "sweep.space.train.optimizer.lr",
     sweep("train.optimizer.lr: {dist: uniform, low: 1, high: 2, step: 0.5}", ", search: {name: grid}")),
    ("pbt_changes_training_only", sweep("model.params.width: {choice: [1, 2]}", ", trial_scheduler: {name: pbt}"),
     "sweep.space.model.params.width", sweep(LR, ", trial_scheduler: {name: pbt}")),
    ("pbt_has_a_population", sweep(LR, ", trials: 1, trial_scheduler: {name: pbt}"),
     "sweep.trials", sweep(LR, ", trials: 2, trial_scheduler: {name: pbt}")),
    ("rungs_below_the_length", sweep(LR, ", trial_scheduler: {name: asha, min: 5ep}"),
     "sweep.trial_scheduler.min", sweep(LR, ", trial_scheduler: {name: asha, min: 4ep}")),
    ("rungs_below_the_length", sweep(LR, ", trial_scheduler: {name: asha, min: 1m}"),
     "sweep.trial_scheduler.min", sweep(LR, ", trial_scheduler: {name: none, min: 1m}")),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "wrong", "path", "right"), CASES)
def test_a_rule_refuses_what_is_wrong_and_only_that(rule: str, wrong: str, path: str, right: str) -> None:
    found = problem(wrong)
    assert found.path == path
    assert found.line is not None
    load(right)


def test_every_rule_has_a_case() -> None:
    assert {rule.check.__name__ for rule in RULES} == {case[0] for case in CASES}


def test_an_unknown_path_in_a_sweep_names_the_closest() -> None:
    found = problem(sweep("train.optimzer.lr: {choice: [1]}"))
    assert "'train.optimizer.lr'" in found.hint


def test_a_rule_is_left_out_where_a_field_it_reads_is_wrong() -> None:
    text = train("epochs: 1, global_batch_size: none, micro_batch_size: 100") + "resources: {workers: 100}"
    assert [one.path for one in problems(text)] == ["train.global_batch_size"]


def test_a_rule_about_a_default_points_at_its_section_and_says_so() -> None:
    found = problem(SMALL + "resources: {workers: 100}")
    assert (found.path, found.line, found.origin) == ("train.global_batch_size", 5, "default")
