"""What no field can say alone: combinations of fields that cannot be run.

A rule is a pure function of the whole spec, and names the fields it reads, so that it is left out where one of them is
wrong by itself. Adding one is a function and a line in ``RULES``, or in ``SWEEP_RULES`` where it is about a sweep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil

from pydantic import ValidationError

from epochal.errors import Problem
from epochal.settings import CREDENTIALS
from epochal.spec import sweep_rules
from epochal.spec.corners import Point, corners, problems_at
from epochal.spec.job import JobSpec
from epochal.spec.problems import field_problems
from epochal.spec.tree import Path, overlaps, placed

METRIC_GROUPS = ("val/", "train/")


@dataclass(frozen=True)
class Rule:
    check: Callable[[JobSpec], Iterable[Problem]]
    reads: tuple[str, ...]


def broken(spec: JobSpec, wrong: Iterable[Path] = ()) -> list[Problem]:
    """Every rule that ``spec`` breaks, leaving out those that read a field at, above or below the paths ``wrong``.

    Of a sweep, the rules of a job must hold at the corners of its space.
    """
    wrong = tuple(wrong)
    problems = _broken(SWEEP_RULES, spec, wrong) if spec.sweep is not None else []
    # A space that is wrong has no corners to look at: then the job is checked as it stands.
    if spec.sweep is None or problems or any(overlaps(_SPACE, path) or overlaps(_POINTS, path) for path in wrong):
        return [*_broken(RULES, spec, wrong), *problems]
    # Without defaults: some rules are about what somebody wrote.
    tree = spec.model_dump(mode="json", exclude_unset=True)

    def judge(point: Point) -> list[Problem]:
        try:
            trained = JobSpec.model_validate(placed(tree, point))
        except ValidationError as error:  # of a section that a searched field alone does not make
            return [finding.problem for finding in field_problems(error)]
        return _broken(RULES, trained, wrong)

    return problems_at(corners(spec.sweep.searched, spec.sweep.points), judge)


def _broken(rules: Iterable[Rule], spec: JobSpec, wrong: Sequence[Path]) -> list[Problem]:
    problems: list[Problem] = []
    for rule in rules:
        reads = [tuple(path.split(".")) for path in rule.reads]
        if not any(overlaps(read, path) for read in reads for path in wrong):
            problems += rule.check(spec)
    return problems


def one_length(spec: JobSpec) -> Iterator[Problem]:
    if spec.train.epochs is None and spec.train.steps is None:
        yield Problem("train", "expected how long to train: epochs or steps", hint="add `epochs: 5` to train")
    if spec.train.epochs is not None and spec.train.steps is not None:
        yield Problem("train.steps", "expected epochs or steps, got both", hint="remove one of the two")


def a_sample_for_each_worker(spec: JobSpec) -> Iterator[Problem]:
    batch, workers = spec.train.global_batch_size, spec.resources.max_workers
    if batch < workers:
        message = f"expected at least {workers}, a sample for each of resources.workers, got {batch}"
        yield Problem("train.global_batch_size", message, value=batch)


def micro_within_global(spec: JobSpec) -> Iterator[Problem]:
    micro, batch = spec.train.micro_batch_size, spec.train.global_batch_size
    if micro is not None and micro > batch:
        message = f"expected at most train.global_batch_size ({batch}), got {micro}"
        yield Problem("train.micro_batch_size", message, value=micro)


def local_norm_needs_parts(spec: JobSpec) -> Iterator[Problem]:
    train = spec.train
    if train.batch_norm == "local" and train.micro_batch_size is None and spec.resources.max_workers == 1:
        yield Problem("train.batch_norm", "local lets workers and micro-batches differ, and there is one",
                      value="local",
                      hint="raise resources.workers, set train.micro_batch_size, or use sync")  # fmt: skip


def unused_parameters_are_ddps(spec: JobSpec) -> Iterator[Problem]:
    if spec.train.find_unused_parameters and spec.resources.strategy == "fsdp":
        told = "finds branches that a step leaves out under ddp, and fsdp does not look for them"
        yield Problem("train.find_unused_parameters", told, value=True,
                      hint="remove it, or use ddp")  # fmt: skip


def best_needs_an_objective(spec: JobSpec) -> Iterator[Problem]:
    keep = spec.checkpoint.keep
    if "best" in keep.model_fields_set and keep.best > 0 and spec.objective is None:
        message = "needs an objective to tell which checkpoint is best"
        yield Problem("checkpoint.keep.best", message, value=keep.best, hint=sweep_rules.ADD_OBJECTIVE)


def best_weights_are_kept(spec: JobSpec) -> Iterator[Problem]:
    if spec.train.export != "best":
        return
    if spec.objective is None:
        message, hint = "needs an objective to tell which weights are best", sweep_rules.ADD_OBJECTIVE
        yield Problem("train.export", message, value="best", hint=hint)
    elif spec.checkpoint.keep.best == 0:
        message = "needs a checkpoint of the best step, and checkpoint.keep.best is 0"
        yield Problem("train.export", message, value="best", hint="remove checkpoint.keep.best")


def fsdp_needs_workers(spec: JobSpec) -> Iterator[Problem]:
    if spec.resources.strategy == "fsdp" and spec.resources.max_workers == 1:
        yield Problem("resources.strategy", "fsdp shards the model over workers, and there is one", value="fsdp",
                      hint="raise resources.workers, or use ddp")  # fmt: skip


def fp16_needs_gpus(spec: JobSpec) -> Iterator[Problem]:
    if spec.train.precision == "fp16" and spec.resources.gpus_per_worker == 0:
        yield Problem("train.precision", "fp16 needs GPUs, and resources.gpus_per_worker is 0", value="fp16",
                      hint="use bf16 or fp32 on CPUs")  # fmt: skip


def elastic_in_order(spec: JobSpec) -> Iterator[Problem]:
    low, high = spec.resources.min_workers, spec.resources.max_workers
    if low > high:
        yield Problem("resources.workers.min", f"expected at most max ({high}), got {low}", value=low)


def one_gpu_a_worker(spec: JobSpec) -> Iterator[Problem]:
    resources = spec.resources
    if (gpus := resources.gpus_per_worker) > 1:
        workers = ceil(gpus) * resources.max_workers
        message = f"expected at most 1, for a worker computes on one GPU, got {gpus:g}"
        hint = f"set it to 1, and resources.workers to {workers}"
        yield Problem("resources.gpus_per_worker", message, value=gpus, hint=hint)


def shared_gpu_alone(spec: JobSpec) -> Iterator[Problem]:
    """NCCL refuses a group with two members on one GPU, and where Ray puts a share nobody knows before."""
    gpus, workers = spec.resources.gpus_per_worker, spec.resources.max_workers
    if 0 < gpus < 1 and workers > 1:
        message = f"workers that train together cannot share a GPU, and {workers} would reserve {gpus:g} each"
        yield Problem("resources.gpus_per_worker", message, value=gpus, hint="set it to 1, or resources.workers to 1")


def some_memory(spec: JobSpec) -> Iterator[Problem]:
    if spec.resources.memory_per_worker == 0:
        yield Problem("resources.memory_per_worker", "expected more than nothing, got 0", value=0)


def metrics_have_a_group(spec: JobSpec) -> Iterator[Problem]:
    named = {"objective": spec.objective, "train.early_stopping": spec.train.early_stopping}
    for path, section in named.items():
        if section is not None and not section.metric.startswith(METRIC_GROUPS):
            message = f"expected a metric under {' or '.join(METRIC_GROUPS)}, got {section.metric!r}"
            hint = f"did you mean 'val/{section.metric.rpartition('/')[2]}'?"
            yield Problem(f"{path}.metric", message, value=section.metric, hint=hint)


def one_direction(spec: JobSpec) -> Iterator[Problem]:
    stopping, objective = spec.train.early_stopping, spec.objective
    if stopping and objective and stopping.metric == objective.metric and stopping.mode != objective.mode:
        message = f"expected {objective.mode}, as the objective has it for {objective.metric}, got {stopping.mode}"
        yield Problem("train.early_stopping.mode", message, value=stopping.mode)


def warmup_ends(spec: JobSpec) -> Iterator[Problem]:
    warmup, steps = spec.train.lr_schedule.warmup, spec.train.steps
    if steps is not None and warmup >= 1 and warmup >= steps:
        message = f"expected fewer than train.steps ({steps}), got {warmup:g}"
        yield Problem("train.lr_schedule.warmup", message, value=warmup)


def average_counts_steps(spec: JobSpec) -> Iterator[Problem]:
    average, steps = spec.train.average, spec.train.steps
    if average is None:
        return
    if steps is not None and average.start >= max(1, steps):
        message = f"expected fewer than train.steps ({steps}), got {average.start:g}"
        yield Problem("train.average.start", message, value=average.start)
    if average.kind == "swa" and "decay" in average.model_fields_set:
        told = "is how ema forgets, and swa takes all steps alike"
        yield Problem("train.average.decay", told, value=average.decay, hint="remove it, or use kind: ema")


def errors_are_skipped(spec: JobSpec) -> Iterator[Problem]:
    if "max_errors" in spec.data.model_fields_set and spec.data.on_error == "fail":
        told = "counts records that are skipped, and data.on_error is fail"
        yield Problem("data.max_errors", told, value=spec.data.max_errors, hint="set data.on_error to skip")


def something_is_trained(spec: JobSpec) -> Iterator[Problem]:
    for index, pattern in enumerate(spec.train.freeze):
        if not pattern.strip("*"):
            told = "freezes every parameter, so nothing would be trained" if pattern else "expected a pattern, got ''"
            yield Problem(f"train.freeze.{index}", told, value=pattern)


def exceptions_are_from_something(spec: JobSpec) -> Iterator[Problem]:
    if spec.train.init_except and spec.train.init_from is None:
        told = "leaves weights out of train.init_from, which is not set"
        yield Problem("train.init_except", told, value=spec.train.init_except, hint="set train.init_from, or remove it")


def time_to_run(spec: JobSpec) -> Iterator[Problem]:
    for name in ("max_duration", "max_pending", "no_progress"):
        limit = getattr(spec.limits, name)
        if limit is not None and limit.seconds == 0:
            yield Problem(f"limits.{name}", f"expected more than nothing, got {limit}", value=str(limit))


def tags_of_ones_own(spec: JobSpec) -> Iterator[Problem]:
    """By Epochal's tags runs are found and told apart: one with `epochal.sweep` would be no run of a job's any more."""
    instead = {"mlflow.runName": "the run has the job's name", "mlflow.note.content": "write a description"}
    for name in spec.tags:
        if name.startswith("epochal.") or name in instead:
            hint = instead.get(name, "give it a name that begins otherwise")
            yield Problem(f"tags.{name}", "is a tag that Epochal sets itself", value=spec.tags[name], hint=hint)


def plain_or_secret(spec: JobSpec) -> Iterator[Problem]:
    for index, name in enumerate(spec.secrets):
        if name in spec.env:
            yield Problem(f"secrets.{index}", f"{name} is in env too", value=name, hint=f"remove env.{name}")
        if name in CREDENTIALS:
            hint = "give the job a variable of its own where Ray's nodes are started"
            yield Problem(f"secrets.{index}", f"{name} is the agent's own, which no job gets", value=name, hint=hint)


RULES: tuple[Rule, ...] = (
    Rule(one_length, reads=("train.epochs", "train.steps")),
    Rule(a_sample_for_each_worker, reads=("train.global_batch_size", "resources.workers")),
    Rule(micro_within_global, reads=("train.micro_batch_size", "train.global_batch_size")),
    Rule(local_norm_needs_parts, reads=("train.batch_norm", "train.micro_batch_size", "resources.workers")),
    Rule(unused_parameters_are_ddps, reads=("train.find_unused_parameters", "resources.strategy")),
    Rule(best_needs_an_objective, reads=("checkpoint.keep.best", "objective")),
    Rule(best_weights_are_kept, reads=("train.export", "checkpoint.keep.best", "objective")),
    Rule(fsdp_needs_workers, reads=("resources.strategy", "resources.workers")),
    Rule(fp16_needs_gpus, reads=("train.precision", "resources.gpus_per_worker")),
    Rule(elastic_in_order, reads=("resources.workers",)),
    Rule(one_gpu_a_worker, reads=("resources.gpus_per_worker",)),
    Rule(shared_gpu_alone, reads=("resources.gpus_per_worker", "resources.workers")),
    Rule(some_memory, reads=("resources.memory_per_worker",)),
    Rule(metrics_have_a_group, reads=("objective.metric", "train.early_stopping.metric")),
    Rule(one_direction, reads=("objective", "train.early_stopping")),
    Rule(warmup_ends, reads=("train.lr_schedule.warmup", "train.steps")),
    Rule(average_counts_steps, reads=("train.average", "train.steps")),
    Rule(errors_are_skipped, reads=("data.max_errors", "data.on_error")),
    Rule(something_is_trained, reads=("train.freeze",)),
    Rule(exceptions_are_from_something, reads=("train.init_except", "train.init_from")),
    Rule(time_to_run, reads=("limits",)),
    Rule(tags_of_ones_own, reads=("tags",)),
    Rule(plain_or_secret, reads=("secrets", "env")),
)

SWEEP_RULES: tuple[Rule, ...] = (
    Rule(sweep_rules.needs_an_objective, reads=("sweep", "objective")),
    Rule(sweep_rules.a_fixed_number_of_workers, reads=("sweep", "resources.workers")),
    Rule(sweep_rules.packs_have_one_worker, reads=("sweep.pack", "resources.workers")),
    Rule(sweep_rules.trials_export_their_last_weights, reads=("sweep.space", "sweep.points", "train.export")),
    Rule(sweep_rules.paths_exist, reads=("sweep.space", "sweep.points")),
    Rule(sweep_rules.paths_apart, reads=("sweep.space", "sweep.points")),
    Rule(sweep_rules.bounds_in_order, reads=("sweep.space",)),
    Rule(sweep_rules.steps_fit, reads=("sweep.space",)),
    Rule(sweep_rules.conditions_can_hold, reads=("sweep.space",)),
    Rule(sweep_rules.values_fit, reads=("sweep.space", "sweep.points")),
    Rule(sweep_rules.weights_are_found, reads=("sweep.space", "sweep.points")),
    Rule(sweep_rules.points_meet_conditions, reads=("sweep.space", "sweep.points")),
    Rule(sweep_rules.no_more_points_than_trials, reads=("sweep.points", "sweep.trials")),
    Rule(sweep_rules.rungs_below_the_length, reads=("sweep.trial_scheduler", "train.epochs", "train.steps")),
)
_SPACE, _POINTS = ("sweep", "space"), ("sweep", "points")
