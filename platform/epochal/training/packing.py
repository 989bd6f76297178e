"""Which trials can train together in one worker, as far as their job specs say. See ``pack``."""

from __future__ import annotations

import json

from epochal.spec.job import JobSpec

ELEMENTWISE = frozenset(
    {"sgd", "adam", "adamw", "nadam", "radam", "adamax", "adagrad", "adadelta", "rmsprop", "rprop", "asgd"}
)
"""Optimizers that treat each number of a parameter for itself, whatever its neighbours are."""

_FREE = ("lr_schedule", "early_stopping", "clip_grad_norm", "epochs", "steps")
"""What trials of a pack may differ in, of ``train``, beside the optimizer's settings and the seed."""

_SCALARS = ("gamma", "label_smoothing")
"""And of ``task.params.loss``: see ``LossEntry.scalars``."""

_ELSEWHERE = ("name", "description", "tags", "experiment", "sweep", "priority", "queue", "preemptible")
"""What has no effect on a training."""


def packable(spec: JobSpec) -> str | None:
    """Why a trial of this spec trains by itself; None where it may train in a pack, if its model is fit for that."""
    train, optimizer = spec.train, spec.train.optimizer.name
    reasons = {
        "several workers train it": spec.resources.max_workers > 1,
        "fp16 scales each trial's loss by itself": train.precision == "fp16",
        "train.compile is set": train.compile,
        "train.varying_buffers names buffers that a forward pass writes": bool(train.varying_buffers),
        "train.find_unused_parameters is set": train.find_unused_parameters,
        "data.on_error is skip": spec.data.on_error == "skip",
        "train.average is set": train.average is not None,
        f"the optimizer {optimizer} does not treat each number of a parameter for itself": optimizer not in ELEMENTWISE,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def key_of(spec: JobSpec) -> str:
    """Trials with the same key can train in one pack: they differ in scalar settings and in seeds alone.

    Where processes read the data, each from its own seed, the seed has to be the same too.
    """
    document = spec.model_dump(mode="json")
    for name in _ELSEWHERE:
        document.pop(name)
    train = document["train"]
    for name in (*_FREE, *(() if spec.data.loader_workers else ("seed",))):
        train.pop(name)
    train["optimizer"] = spec.train.optimizer.name
    loss = (spec.task.params if spec.task else {}).get("loss")
    if isinstance(loss, dict):
        document["task"]["params"]["loss"] = {name: value for name, value in loss.items() if name not in _SCALARS}
    return json.dumps(document, sort_keys=True)
