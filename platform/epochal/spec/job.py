"""The job spec: everything a user asks for, as one frozen value. See ``docs/spec-reference.md``."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag

from epochal.spec.section import STORED, Choice, Component, Section
from epochal.spec.sweep import Sweep
from epochal.units import Bytes, Duration, Interval

PATTERNS = {
    "name": r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
    "metric": r"^[A-Za-z0-9_./-]{1,200}$",
    "tag": r"^[A-Za-z0-9_.-]{1,100}$",
    "variable": r"^[A-Za-z_][A-Za-z0-9_]{0,127}$",
}


MetricName = Annotated[str, Field(pattern=PATTERNS["metric"], examples=["val/accuracy"])]
Mode = Literal["min", "max"]
TagName = Annotated[str, Field(pattern=PATTERNS["tag"])]
VariableName = Annotated[str, Field(pattern=PATTERNS["variable"])]


def _relative(path: str) -> str:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts:
        raise ValueError("expected a folder at or below the spec's own, such as . or src")
    return path


class Data(Component):
    """The dataset."""

    loader_workers: Annotated[int, Field(ge=0, le=128)] = 0
    """Processes a worker uses to load data; 0 loads in the training process."""
    on_error: Literal["fail", "skip"] = "fail"
    """What becomes of a record that cannot be read: `fail` ends the job and names it; `skip` names it, takes the next
    one in its place, and in a validation leaves it out."""
    max_errors: Annotated[int, Field(ge=1, le=1_000_000_000)] = 100
    """With `skip`: of more such records the job fails. Each worker counts a record once, and their counts are added."""


class ParameterGroup(Section):
    """Some of a model's parameters, with settings of their own; whatever it leaves out is the optimizer's."""

    parameters: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
    """Which, as shell patterns over their names: `backbone.*`. A parameter is in the first group that names it."""
    lr: Annotated[float, Field(gt=0, lt=1e6, allow_inf_nan=False)] | None = None
    """Peak learning rate."""
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Weight decay."""


class Optimizer(Choice):
    """An optimizer of torch by name, its parameters beside it."""

    name: Annotated[str, Field(min_length=1, max_length=200)] = "adamw"
    """The optimizer."""
    lr: Annotated[float, Field(gt=0, lt=1e6, allow_inf_nan=False)] = 1e-3
    """Peak learning rate."""
    decay_on: Literal["all", "matrices"] = "all"
    """What weight decay is for: `matrices` leaves out biases, norms and whatever else has fewer than two dimensions."""
    groups: list[ParameterGroup] = []
    """Parameters with a learning rate or weight decay of their own."""


class LrSchedule(Choice):
    """How the learning rate moves, by step."""

    name: Annotated[str, Field(min_length=1, max_length=200)] = "constant"
    """The schedule after the warm-up."""
    warmup: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Linear warm-up: below 1 a fraction of all steps, otherwise a number of steps."""


class EarlyStopping(Section):
    """End the training once a metric has stopped getting better."""

    metric: MetricName
    """The metric watched, such as `val/loss`."""
    mode: Mode
    """Whether lower or higher is better."""
    patience: Annotated[int, Field(ge=1)] = 3
    """Validations without an improvement before the training ends."""
    min_delta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """The least change that counts as an improvement."""


class Average(Section):
    """Means of the weights over the steps: it is they that are validated and exported, the last weights beside them.
    What is no parameter, such as a batch norm's statistics, is not averaged."""

    kind: Literal["ema", "swa"] = "ema"
    """`ema` is an exponential moving average, `swa` the mean of all steps from `start` on."""
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.999
    """Of `ema`: what is kept of the mean in a step."""
    start: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Steps before the first that counts: below 1 a fraction of all steps, otherwise a number of them."""


class Train(Section):
    """How to train."""

    epochs: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Passes over the training data; give this or `steps`."""
    steps: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """Optimizer steps; give this or `epochs`."""
    global_batch_size: Annotated[int, Field(ge=1, le=10_000_000)] = 64
    """Samples an optimizer step sees over all workers: the same result whatever their number."""
    drop_last: bool = False
    """Leave out the last batch of an epoch where it would be smaller: other samples each epoch."""
    micro_batch_size: Annotated[int, Field(ge=1)] | None = None
    """Samples a worker's forward pass sees at once; gradient accumulation is derived from it."""
    optimizer: Optimizer = Optimizer()
    lr_schedule: LrSchedule = LrSchedule()
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """What the forward pass computes in; weights stay in fp32. fp16 scales the loss."""
    batch_norm: Literal["sync", "local"] = "sync"
    """Whose samples batch norms take their statistics of: `sync` those of all workers, so that the result does not
    depend on their number, for two messages a layer and step; `local` those of one forward pass on one worker."""
    average: Average | None = None
    clip_grad_norm: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Gradients are scaled down to this total norm."""
    compile: bool = False
    """Use `torch.compile`, on the model and on its parts, which a task may call by themselves. The events tell where
    that compiles nothing. Each size of batch takes a compilation, also that of the last of an epoch."""
    gradient_checkpointing: bool = False
    """Keep no activations of the model's repeated parts (items of `nn.Sequential` and `nn.ModuleList` without buffers):
    the backward pass computes them again. Less memory, about a third more time, the same result."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0  # numpy takes no larger one
    """Of the first weights, the order of the samples and whatever else is drawn."""
    deterministic: bool = False
    """Refuse operations whose result may differ between two runs; slower."""
    validate_every: Interval = Interval(1, "epochs")
    """How often the validation data is gone through."""
    early_stopping: EarlyStopping | None = None
    init_from: str | None = None
    """Weights to start from: a job (its id, name, or MLflow run), a checkpoint folder or a `.safetensors` file."""
    init_except: list[str] = []
    """What `init_from` is not taken for, as shell patterns over the weights' names: `head.*`, where the classes are as
    many and others. It stays as `seed` drew it."""
    find_unused_parameters: bool = False
    """For models under `ddp` that leave out other parameters each time: look in every step for those without a
    gradient. Those that never get one are found in the first step."""
    varying_buffers: list[str] = []
    """Buffers that a forward pass writes from the samples of its worker, as shell patterns over their names (`bank.*`):
    each forward pass begins with the first worker's, so that the result depends on the number of workers."""
    export: Literal["last", "best"] = "last"
    """Whose weights the model is exported, packaged for MLflow and tested with: those of the last step, or of the step
    where the objective was best. A file beside them has the others."""
    freeze: list[str] = []
    """Parameters that are not trained, as shell patterns over their names: `features.*`."""

    @property
    def unit(self) -> Literal["epochs", "steps"]:
        """What its length is counted in."""
        return "epochs" if self.epochs is not None else "steps"


class Objective(Section):
    """The metric a run is judged by. There is no default direction."""

    metric: MetricName
    """The metric, such as `val/accuracy`."""
    mode: Mode
    """Whether lower or higher is better."""


class WorkerRange(Section):
    """An elastic number of workers: as many as fit, within these bounds."""

    min: Annotated[int, Field(ge=1, le=100_000)]
    """Fewer than this do not start."""
    max: Annotated[int, Field(ge=1, le=100_000)]
    """Never more than this."""


def _workers_kind(value: Any) -> str:
    """Which of the two ways `workers` is written in, so that only that one's problems are told."""
    return "range" if isinstance(value, dict | WorkerRange) else "count"


Workers = Annotated[
    Annotated[int, Field(ge=1, le=100_000), Tag("count")] | Annotated[WorkerRange, Tag("range")],
    Discriminator(_workers_kind),
]


class Resources(Section):
    """What the job needs of the cluster."""

    workers: Workers = 1
    """Processes that train together; a section with `min` and `max` makes the number elastic."""
    cpus_per_worker: Annotated[float, Field(gt=0, le=4096, allow_inf_nan=False)] = 1.0
    """CPUs each worker reserves, which also sets its threads; fractions share one."""
    gpus_per_worker: Annotated[float, Field(ge=0, le=64, allow_inf_nan=False)] = 0.0
    """1: each worker computes on a GPU of its own; a fraction: a lone worker shares one; 0 trains on the CPU."""
    memory_per_worker: Bytes | None = None
    """Memory each worker reserves; placement counts it."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """`ddp` keeps the whole model on every worker, `fsdp` shards weights, gradients and optimizer state."""

    @property
    def max_workers(self) -> int:
        return self.workers if isinstance(self.workers, int) else self.workers.max

    @property
    def min_workers(self) -> int:
        return self.workers if isinstance(self.workers, int) else self.workers.min


class Keep(Section):
    """Which checkpoints are kept."""

    latest: Annotated[int, Field(ge=1, le=1000)] = 1
    """The newest ones."""
    best: Annotated[int, Field(ge=0, le=1000)] = 1
    """By the objective; none are kept for being best where there is no objective."""


class Checkpoint(Section):
    """When state is saved, and what is kept of it."""

    every: Interval = Interval(1, "epochs")
    """How often state is saved."""
    keep: Keep = Keep()


class Retry(Section):
    """New attempts allowed, by what ended the one before."""

    infra: Annotated[int, Field(ge=0, le=1000)] = 3
    """A worker, node or connection was lost."""
    oom: Annotated[int, Field(ge=0, le=1000)] = 0
    """Memory ran out."""
    user: Annotated[int, Field(ge=0, le=1000)] = 0
    """The job's own code failed."""


class Limits(Section):
    """How long the job may wait and run."""

    max_duration: Duration | None = None
    """Running time over all attempts, after which the job fails."""
    max_pending: Duration | None = None
    """Waiting time, after which the job fails."""
    no_progress: Duration | None = None
    """Time without a step after which it counts as hanging; default: a minute, or ten times the slowest steps. Setting
    up, validating, saving and the first step may always take longer, and as long as this."""


class Code(Section):
    """Your own code, shipped to the workers: `model.name: my_pkg.nets:Net` then works."""

    dir: Annotated[str, AfterValidator(_relative)] = "."
    """The folder, relative to the spec; it is on the workers' import path."""
    exclude: list[str] = []
    """More ignore patterns, as in .gitignore."""


class JobSpec(Section):
    """What one job is: a model, its data, how to train, and what that needs."""

    version: Literal[1]
    """The version of this format."""
    name: Annotated[str, Field(pattern=PATTERNS["name"], examples=["digits-cnn"])]
    """Lower-case letters, digits and dashes."""
    experiment: Annotated[str, Field(min_length=1, max_length=250)] | None = None
    """The MLflow experiment; default: the name as the spec has it, whatever `--name` or `--set` makes of that."""
    description: Annotated[str, Field(max_length=10_000)] = ""
    """Shown with the MLflow run."""
    tags: dict[TagName, Annotated[str, Field(max_length=1000)]] = {}
    """Tags of the MLflow run. Those that begin with `epochal.` are Epochal's own."""
    model: Component
    data: Data
    task: Component | None = None
    """What the loss and the metrics are; default: the dataset's own."""
    train: Train
    objective: Objective | None = None
    """Needed for `checkpoint.keep.best` and for sweeps."""
    resources: Resources = Resources()
    checkpoint: Checkpoint = Checkpoint()
    retry: Retry = Retry()
    limits: Limits = Limits()
    priority: Annotated[int, Field(ge=0, le=100)] = 50
    """0 to 100; higher goes first."""
    queue: Annotated[str, Field(pattern=PATTERNS["name"])] = "default"
    """The queue whose quota it counts against; all queues are served in one order."""
    preemptible: bool = False
    """It may be asked to save its state and wait, to make room for a job of higher priority."""
    code: Code | None = None
    env: dict[VariableName, str] = {}
    """Environment variables of the workers. Not for secrets. With one that torch or the process reads when it starts
    (`TORCH_LOGS`, `OMP_*`, `KMP_*`, ...) the workers are new processes, which takes seconds longer than idle ones."""
    secrets: list[VariableName] = []
    """Names of variables that the cluster provides; values are never stored, and replaced by `***` in what workers
    print and raise."""
    sweep: Sweep | None = None

    @property
    def most_workers(self) -> int:
        """The most that it can have at a time: those of all trials that may train then, where it is a sweep."""
        return self.resources.max_workers * (self.sweep.at_a_time if self.sweep is not None else 1)

    @property
    def experiment_name(self) -> str:
        return self.experiment or self.name

    @classmethod
    def from_stored(cls, stored: dict[str, Any]) -> JobSpec:
        """Read a spec the ledger holds, ignoring keys that a newer version of Epochal wrote."""
        return cls.model_validate(stored, context=STORED)
