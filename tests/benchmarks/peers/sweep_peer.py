"""A sweep of tiny trials as its peers' users would write it: ``python sweep_peer.py WAY TRIALS STEPS``.

Prints the seconds from before the first trial to after the last: everything is imported, Ray up and the data read.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from digits import Options, Perceptron, load
from torch.nn.functional import cross_entropy

HIDDEN = (128, 64)
SLOTS = 2

_DATA: dict[str, Any] = {}


def trial(lr: float, steps: int) -> float:
    """Train the catalog's ``mlp`` on digits for so many steps, and validate once: the validation loss."""
    torch.set_num_threads(1)
    if not _DATA:
        images, labels = load(Options()).tensors
        _DATA.update(images=images, labels=labels)
    images, labels = _DATA["images"], _DATA["labels"]
    torch.manual_seed(0)
    model = Perceptron(HIDDEN)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    done = 0
    while done < steps:
        for batch in torch.randperm(len(images)).split(32):
            if done == steps:
                break
            optimizer.zero_grad()
            loss = cross_entropy(model(images.index_select(0, batch)), labels.index_select(0, batch))
            loss.backward()
            optimizer.step()
            done += 1
    with torch.no_grad():
        return float(cross_entropy(model(images[:360]), labels[:360]))


def rates(count: int) -> list[float]:
    draw = random.Random(0)
    return [10 ** draw.uniform(-3, -0.5) for _ in range(count)]


def plain(trials: int, steps: int) -> float:
    trial(0.1, steps)
    began = time.perf_counter()
    for lr in rates(trials):
        trial(lr, steps)
    return time.perf_counter() - began


def optuna(trials: int, steps: int) -> float:
    import optuna as op

    op.logging.set_verbosity(op.logging.WARNING)
    trial(0.1, steps)
    study = op.create_study(sampler=op.samplers.RandomSampler(seed=0))
    began = time.perf_counter()
    study.optimize(lambda one: trial(one.suggest_float("lr", 1e-3, 0.3, log=True), steps), n_trials=trials)
    return time.perf_counter() - began


def tune_function(trials: int, steps: int) -> float:
    from ray import tune

    def run(config: dict[str, float]) -> dict[str, float]:
        return {"loss": trial(config["lr"], steps)}

    return _tuned(tune.with_resources(run, {"cpu": 1}), trials, {})


def tune_class(trials: int, steps: int) -> float:
    return _tuned_class(trials, steps, {})


def tune_class_tuned(trials: int, steps: int) -> float:
    """With fewer of the things that Tune does between trials."""
    os.environ |= {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_GLOBAL_CHECKPOINT_S": "3600",
        "TUNE_MAX_PENDING_TRIALS_PG": "16",
        "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
    }
    return _tuned_class(trials, steps, {"verbose": 0})


def tune_class_recorded(trials: int, steps: int) -> float:
    """As that, with what records each trial in MLflow: once, where Epochal records each step."""
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    recorder = MLflowLoggerCallback(tracking_uri=f"sqlite:///{os.getcwd()}/mlflow.db", experiment_name="peer")
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    return _tuned_class(trials, steps, {"verbose": 0, "callbacks": [recorder]})


def _tuned_class(trials: int, steps: int, told: dict[str, Any]) -> float:
    from ray import tune

    class Kept(tune.Trainable):  # type: ignore[misc]
        def setup(self, config: dict[str, float]) -> None:
            self.lr = config["lr"]

        def step(self) -> dict[str, Any]:
            return {"loss": trial(self.lr, steps), "done": True}

        def reset_config(self, new_config: dict[str, float]) -> bool:
            self.lr = new_config["lr"]
            return True

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            return None

        def load_checkpoint(self, checkpoint: Any) -> None:
            return

    return _tuned(tune.with_resources(Kept, {"cpu": 1}), trials, told, reuse_actors=True)


def _tuned(trainable: Any, trials: int, told: dict[str, Any], **options: Any) -> float:
    import ray
    from ray import tune

    ray.init(num_cpus=SLOTS, include_dashboard=False, log_to_driver=False)
    tuner = tune.Tuner(
        trainable,
        param_space={"lr": tune.loguniform(1e-3, 0.3)},
        tune_config=tune.TuneConfig(
            num_samples=trials, metric="loss", mode="min", max_concurrent_trials=SLOTS, **options
        ),
        run_config=tune.RunConfig(storage_path=os.getcwd(), **told),
    )
    began = time.perf_counter()
    results = tuner.fit()
    seconds = time.perf_counter() - began
    if results.num_errors or len(results) != trials:
        raise RuntimeError(f"{results.num_errors} of {len(results)} trials failed")
    return seconds


WAYS: dict[str, Callable[[int, int], float]] = {
    "plain": plain,
    "optuna": optuna,
    "tune-function": tune_function,
    "tune-class": tune_class,
    "tune-class-tuned": tune_class_tuned,
    "tune-class-recorded": tune_class_recorded,
}

if __name__ == "__main__":
    _, way, trials, steps = sys.argv
    seconds = WAYS[way](int(trials), int(steps))
    print(json.dumps({"seconds": seconds}), flush=True)
