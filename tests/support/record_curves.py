"""Records learning curves of real trainings, over which tests replay sweeps: ``python tests/support/record_curves.py``.

It trains scikit-learn's MLPClassifier (SGD, one hidden layer) on its digits with every combination of ``GRID``, for
``EPOCHS`` epochs each, and writes the cross entropy on a third of the samples after each epoch, null where it diverged,
to ``tests/support/digits_curves.json``, which takes some minutes.
"""

from __future__ import annotations

import json
import math
import warnings
from itertools import product
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

PATH = Path(__file__).with_name("digits_curves.json")
EPOCHS = 27
GRID = {
    "lr": [float(f"{10 ** (-5 + 0.4 * step):.3g}") for step in range(15)],
    "alpha": [0.0001, 0.01, 1.0, 10.0],
    "momentum": [0.0, 0.9, 0.99],
    "width": [4, 16, 64],
}


def curve(lr: float, alpha: float, momentum: float, width: int) -> list[float | None]:
    samples, classes = load_digits(return_X_y=True)
    split = train_test_split(samples / 16, classes, test_size=1 / 3, random_state=0, stratify=classes)
    train_x, val_x, train_y, val_y = split
    network = MLPClassifier(
        (width,),
        solver="sgd",
        learning_rate_init=lr,
        alpha=alpha,
        batch_size=64,
        momentum=momentum,
        random_state=0,
    )
    losses: list[float | None] = []
    for _ in range(EPOCHS):
        try:
            network.partial_fit(train_x, train_y, classes=np.arange(10))
            likelihood = network.predict_proba(val_x)[np.arange(len(val_y)), val_y]
            loss = float(-np.log(np.maximum(likelihood, 1e-12)).mean())
        except ValueError:  # weights are infinite
            loss = math.nan
        losses.append(float(f"{loss:.4g}") if math.isfinite(loss) else None)
    return losses


def main() -> None:
    warnings.simplefilter("ignore")
    curves = [curve(*combination) for combination in product(*GRID.values())]
    PATH.write_text(json.dumps({"grid": GRID, "curves": curves}, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
