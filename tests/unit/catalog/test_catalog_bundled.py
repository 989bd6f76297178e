"""The files read directly hold what scikit-learn's own loaders return."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from epochal.catalog.build import load_data
from epochal.spec.section import Component


@pytest.mark.parametrize("name", ["digits", "wine", "breast-cancer", "diabetes"])
def test_every_sample_is_that_of_the_package(name: str) -> None:
    from sklearn import datasets  # seconds, which no other process of these tests need spend

    load = getattr(datasets, f"load_{name.replace('-', '_')}")
    bunch = load(scaled=False) if name == "diabetes" else load()
    data = load_data(Component(name=name, params={"validation": 0}), Path())
    batch = data.train.fetch(range(len(data.train)))
    inputs, targets = batch["input"].flatten(1).numpy(), batch["target"].numpy()
    if name == "digits":
        np.testing.assert_allclose(inputs, bunch.data / 16, rtol=1e-6)
    else:
        expected = (bunch.data - bunch.data.mean(0)) / bunch.data.std(0)
        np.testing.assert_allclose(inputs, expected, rtol=1e-3, atol=1e-3)
    wanted = bunch.target if name != "diabetes" else (bunch.target - bunch.target.mean()) / bunch.target.std()
    np.testing.assert_allclose(targets, wanted, rtol=1e-4, atol=1e-5)
