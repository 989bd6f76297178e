"""Every rule across fields: a spec that breaks it, and one nearby that does not."""

from __future__ import annotations

import pytest
from spec_texts import SMALL, load, problem, problems

from epochal.spec.rules import RULES, SWEEP_RULES

OBJECTIVE = "objective: {metric: val/accuracy, mode: max}\n"


def train(fields: str) -> str:
    return SMALL.replace("{epochs: 5}", f"{{{fields}}}")


def sweep(space: str, fields: str = "") -> str:
    return f"{SMALL}{OBJECTIVE}sweep: {{space: {{{space}}}{fields}}}\n"


LR = "train.optimizer.lr: {dist: loguniform, low: 1e-4, high: 1e-1}"

CASES = [
    ("one_length", train(""), "train", train("steps: 5")),
    ("one_length", train("epochs: 5, steps: 5"), "train.steps", SMALL),
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
    ("tags_of_ones_own", SMALL + "tags: {epochal.sweep: a}", "tags.epochal.sweep", SMALL + "tags: {epochal: a}"),
    ("tags_of_ones_own", SMALL + "tags: {mlflow.runName: a}", "tags.mlflow.runName", SMALL + "tags: {mlflow.user: a}"),
    ("best_needs_an_objective", SMALL + "checkpoint: {keep: {best: 1}}",
     "checkpoint.keep.best", SMALL + "checkpoint: {keep: {best: 0}}"),
    ("tags_of_ones_own", SMALL + "tags: {epochal.sweep: a}", "tags.epochal.sweep", SMALL + "tags: {epochal: a}"),
    ("tags_of_ones_own", SMALL + "tags: {mlflow.runName: a}", "tags.mlflow.runName", SMALL + "tags: {mlflow.user: a}"),
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
    ("average_counts_steps", train("steps: 100, average: {start: 100}"),
     "train.average.start", train("steps: 100, average: {start: 99}")),
    ("average_counts_steps", train("epochs: 1, average: {kind: swa, decay: 0.9}"),
     "train.average.decay", train("epochs: 1, average: {decay: 0.9}")),
    ("errors_are_skipped", SMALL.replace("{name: digits}", "{name: digits, max_errors: 3}"),
     "data.max_errors", SMALL.replace("{name: digits}", "{name: digits, max_errors: 3, on_error: skip}")),
    ("something_is_trained", train("epochs: 1, freeze: [a.*, '*']"),
     "train.freeze.1", train("epochs: 1, freeze: [a.*, '*.bias']")),
    ("exceptions_are_from_something", train("epochs: 1, init_except: [head.*]"), "train.init_except",
     train("epochs: 1, init_except: [head.*], init_from: base")),
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
    ("paths_exist", sweep("train.epochs: {choice: [1, 2]}"), "sweep.space.train.epochs", sweep(LR)),
    ("paths_exist", sweep("train: {choice: [{epochs: 1}, {epochs: 2}]}"), "sweep.space.train", sweep(LR)),
    ("weights_are_found", sweep("train.init_from: {choice: [other-job, /weights.safetensors]}"),
     "sweep.space.train.init_from.choice.0", sweep("train.init_from: {choice: [/one.safetensors, null]}")),
    ("weights_are_found", sweep(LR, ", points: [{train.init_from: best.safetensors}]"),
     "sweep.points.0.train.init_from", sweep(LR, ", points: [{train.init_from: /best.safetensors}]")),
    ("paths_exist", sweep(LR, ", points: [{}, {train.optimzer.lr: 1}]"),
     "sweep.points.1.train.optimzer.lr", sweep(LR, ", points: [{}, {train.seed: 1}]")),
    ("a_fixed_number_of_workers", sweep(LR) + "resources: {workers: {min: 1, max: 2}}",
     "resources.workers", sweep(LR) + "resources: {workers: 2}"),
    ("packs_have_one_worker", sweep(LR, ", pack: 4") + "resources: {workers: 2}",
     "sweep.pack", sweep(LR, ", pack: auto") + "resources: {workers: 2}"),
    ("paths_apart", sweep(f"train.optimizer: {{choice: [{{name: sgd}}]}}, {LR}"),
     "sweep.space.train.optimizer.lr", sweep(f"train.optimizer.momentum: {{choice: [0.1]}}, {LR}")),
    ("paths_apart", sweep(LR, ", points: [{train.optimizer: {name: sgd}}]"),
     "sweep.points.0.train.optimizer.lr", sweep(LR, ", points: [{train.optimizer.lr: 1}]")),
    ("bounds_in_order", sweep("train.optimizer.lr: {dist: uniform, low: 2, high: 1}"),
     "sweep.space.train.optimizer.lr.high", sweep("train.optimizer.lr: {dist: uniform, low: 1, high: 2}")),
    ("bounds_in_order", sweep("model.params.a: {dist: uniform, low: -1.7e308, high: 1.7e308, step: 1e300}"),
     "sweep.space.model.params.a", sweep("model.params.a: {dist: uniform, low: -1e300, high: 1.7e308, step: 1e300}")),
    ("bounds_in_order", sweep("train.seed: {dist: int, low: 0, high: 9, log: true}"),
     "sweep.space.train.seed.low", sweep("train.seed: {dist: int, low: 1, high: 9, log: true}")),
    ("bounds_in_order", sweep("train.lr_schedule.warmup: {dist: normal, mean: 0, sigma: 0.1, low: 0.5}"),
     "sweep.space.train.lr_schedule.warmup.low",
     sweep("train.lr_schedule.warmup: {dist: normal, mean: 0, sigma: 0.1, low: 0.3}")),
    ("steps_fit", sweep("train.seed: {dist: int, low: 1, high: 3, step: 3}"),
     "sweep.space.train.seed.step", sweep("train.seed: {dist: int, low: 1, high: 3, step: 2}")),
    ("best_weights_are_kept", train("epochs: 1, export: best"),
     "train.export", train("epochs: 1, export: best") + OBJECTIVE),
    ("best_weights_are_kept", train("epochs: 1, export: best") + OBJECTIVE + "checkpoint: {keep: {best: 0}}",
     "train.export", train("epochs: 1, export: last") + OBJECTIVE + "checkpoint: {keep: {best: 0}}"),
    ("trials_export_their_last_weights", sweep(LR).replace("epochs: 5", "epochs: 5, export: best"),
     "train.export", sweep(LR)),
    ("steps_fit", sweep("train.seed: {dist: int, low: 1, high: 9, step: 9, log: true}"),
     "sweep.space.train.seed.step", sweep("train.seed: {dist: int, low: 1, high: 9, step: 2, log: true}")),
    ("conditions_can_hold", sweep(f"{LR}, train.seed: {{choice: [1], when: {{train.optimizer.name: [sgd]}}}}"),
     "sweep.space.train.seed.when.train.optimizer.name",
     sweep("train.optimizer.name: {choice: [sgd, adam]}, "
           "train.seed: {choice: [1], when: {train.optimizer.name: [sgd]}}")),
    ("conditions_can_hold", sweep(f"{LR}, train.seed: {{choice: [1], when: {{train.optimizer.lr: [1e-3]}}}}"),
     "sweep.space.train.seed.when.train.optimizer.lr",
     sweep("train.optimizer.lr: 1e-3, train.seed: {choice: [1], when: {train.optimizer.lr: [1e-3]}}")),
    ("conditions_can_hold", sweep("train.compile: {choice: [true]}, train.seed: {choice: [1], "
                                  "when: {train.compile: [1]}}"),
     "sweep.space.train.seed.when.train.compile",
     sweep("train.compile: {choice: [true]}, train.seed: {choice: [1], when: {train.compile: [true]}}")),
    ("conditions_can_hold", sweep("train.seed: {choice: [1], when: {train.seed: [1]}}"),
     "sweep.space.train.seed.when", sweep("train.seed: {choice: [1]}")),
    ("values_fit", sweep("train.precision: {choice: [fp32, fp8]}"),
     "sweep.space.train.precision.choice.1", sweep("train.precision: {choice: [fp32, bf16]}")),
    ("values_fit", sweep("train.global_batch_size: {dist: uniform, low: 2, high: 8}"),
     "sweep.space.train.global_batch_size.low", sweep("train.global_batch_size: {dist: int, low: 2, high: 8}")),
    ("values_fit", sweep("train.optimizer.lr: {dist: normal, mean: 0.1, sigma: 0.1}"), "sweep.space.train.optimizer.lr",
     sweep("train.optimizer.lr: {dist: normal, mean: 0.1, sigma: 0.1, low: 1e-6}")),
    ("values_fit", sweep("train.precision: fp8"), "sweep.space.train.precision.value", sweep("train.precision: bf16")),
    ("values_fit", sweep(LR, ", points: [{train.optimizer.lr: x}]"), "sweep.points.0.train.optimizer.lr",
     sweep(LR, ", points: [{train.optimizer.lr: 0.5}]")),
    ("values_fit", sweep("train.optimizer: {choice: [{lr: -1}]}"),
     "sweep.space.train.optimizer.choice.0", sweep("train.optimizer: {choice: [{lr: 1}]}")),
    ("points_meet_conditions",
     sweep("train.optimizer.name: {choice: [sgd, adam]}, "
           "train.seed: {choice: [1], when: {train.optimizer.name: [sgd]}}", ", points: [{train.seed: 1}]"),
     "sweep.points.0.train.seed",
     sweep("train.optimizer.name: {choice: [sgd, adam]}, "
           "train.seed: {choice: [1], when: {train.optimizer.name: [sgd]}}",
           ", points: [{train.seed: 1, train.optimizer.name: sgd}]")),
    ("no_more_points_than_trials", sweep(LR, ", trials: 1, points: [{}, {}]"), "sweep.trials",
     sweep(LR, ", trials: 2, points: [{}, {}]")),
    ("rungs_below_the_length", sweep(LR, ", trial_scheduler: {name: asha, min: 5ep}"),
     "sweep.trial_scheduler.min", sweep(LR, ", trial_scheduler: {name: asha, min: 4ep}")),
    ("rungs_below_the_length", sweep(LR, ", trial_scheduler: {name: asha, min: 1m}"),
     "sweep.trial_scheduler.min", sweep(LR, ", trial_scheduler: {name: asha, min: 0.5ep}")),
    ("rungs_below_the_length", sweep(LR, ", trial_scheduler: {name: asha, min: 2steps}"),
     "sweep.trial_scheduler.min",
     sweep(LR, ", trial_scheduler: {name: asha, min: 2steps}").replace("epochs: 5", "steps: 5")),
    ("rungs_below_the_length", sweep(LR, ", trial_scheduler: {name: none, min: 1ep}"),
     "sweep.trial_scheduler.min", sweep(LR, ", trial_scheduler: {name: none}")),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "wrong", "path", "right"), CASES)
def test_a_rule_refuses_what_is_wrong_and_only_that(rule: str, wrong: str, path: str, right: str) -> None:
    found = problem(wrong)
    assert found.path == path
    assert found.line is not None
    load(right)


def test_every_rule_has_a_case() -> None:
    assert {rule.check.__name__ for rule in (*RULES, *SWEEP_RULES)} == {case[0] for case in CASES}


def test_what_a_searched_field_lacks_in_a_section_that_the_spec_has_not_is_told() -> None:
    """It ended the command with pydantic's own traceback."""
    found = problem(sweep("train.early_stopping.patience: {choice: [1, 2]}"))
    assert found.path == "sweep.space.train.early_stopping.patience"
    assert found.message == "train.early_stopping.metric: is required, where train.early_stopping.patience is 1"
    rest = "train.early_stopping.metric: val/loss, train.early_stopping.mode: min"
    load(sweep(f"train.early_stopping.patience: {{choice: [1, 2]}}, {rest}"))


def test_an_unknown_path_in_a_sweep_names_the_closest() -> None:
    found = problem(sweep("train.optimzer.lr: {choice: [1]}"))
    assert "'train.optimizer.lr'" in found.hint


def test_a_rule_is_left_out_where_a_field_it_reads_is_wrong() -> None:
    text = train("epochs: 1, global_batch_size: none, micro_batch_size: 100") + "resources: {workers: 100}"
    assert [one.path for one in problems(text)] == ["train.global_batch_size"]


def test_a_rule_about_a_default_points_at_its_section_and_says_so() -> None:
    found = problem(SMALL + "resources: {workers: 100}")
    assert (found.path, found.line, found.origin) == ("train.global_batch_size", 5, "default")


def test_a_corner_that_breaks_a_rule_is_refused_and_says_where() -> None:
    """Two fields that are searched, and only together wrong."""
    space = "train.global_batch_size: {choice: [64, 8]}, train.micro_batch_size: {choice: [4, 16]}, train.seed: 1"
    found = problem(sweep(space))
    assert found.path == "sweep.space.train.micro_batch_size"
    assert found.message.startswith("expected at most train.global_batch_size (8), got 16, where train.global_batch")
    load(sweep(space.replace("64, 8", "64, 16")))
    allowed = ", when: {train.global_batch_size: [64]}"
    load(sweep(space.replace("[4, 16]", f"[4, 16]{allowed}")))


def test_the_value_that_a_sweep_moves_is_not_what_a_rule_reads() -> None:
    load(sweep("train.global_batch_size: {choice: [4, 8]}") + "resources: {workers: 4}")
    found = problem(sweep("train.global_batch_size: {choice: [4, 8]}") + "resources: {workers: 5}")
    assert found.path == "sweep.space.train.global_batch_size"


def test_a_fixed_field_that_a_searched_one_makes_wrong_is_told_at_the_search() -> None:
    text = sweep("train.global_batch_size: {choice: [64, 8]}").replace("epochs: 5", "epochs: 5, micro_batch_size: 16")
    found = problem(text)
    assert found.path == "sweep.space.train.global_batch_size"
    assert found.message.startswith("train.micro_batch_size: expected at most train.global_batch_size (8), got 16")


def test_a_point_of_the_users_own_is_a_corner_too() -> None:
    space = "train.global_batch_size: {choice: [64, 32]}, train.micro_batch_size: {choice: [4, 16]}"
    found = problem(sweep(space, ", points: [{train.seed: 1}, {train.global_batch_size: 2}]"))
    assert found.path == "sweep.points.1"
    load(sweep(space, ", points: [{train.seed: 1}, {train.global_batch_size: 4}]"))


def test_of_many_corners_each_end_is_looked_at_and_some_together() -> None:
    many = ", ".join(f"model.params.p{number}: {{choice: [{', '.join(map(str, range(9)))}]}}" for number in range(9))
    found = problem(sweep(f"{many}, train.precision: {{choice: [fp32, bf16, fp16]}}"))
    assert (found.path, found.message) == (
        "sweep.space.train.precision",
        "fp16 needs GPUs, and resources.gpus_per_worker is 0",
    )
    batches = "train.global_batch_size: {choice: [64, 8]}, train.micro_batch_size: {choice: [4, 16]}"
    assert problem(sweep(f"{many}, {batches}")).path == "sweep.space.train.micro_batch_size"
