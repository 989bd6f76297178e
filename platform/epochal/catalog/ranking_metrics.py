"""How samples are ranked, as means over classes or labels. Importing this imports torchmetrics.

torchmetrics counts a class without any sample as zero, so that a model which is always right would have less than one.
These leave it out of the mean; where nothing is left they give NaN. They are made with ``average="none"`` and
``thresholds``, so that what they keep is ``confmat``: (thresholds, classes, without or with it, found or not).
"""

from __future__ import annotations

from torch import Tensor
from torchmetrics.classification import MulticlassAUROC, MultilabelAUROC, MultilabelAveragePrecision


class ClassAUROC(MulticlassAUROC):
    """Of the classes that some samples have and others not."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        """preds: (batch, classes), whose softmax counts: torchmetrics leaves out that of a batch between 0 and 1."""
        super().update(preds.float().softmax(1), target)

    def compute(self) -> Tensor:  # type: ignore[override] # as torchmetrics does
        return super().compute()[_samples(self.confmat).all(dim=1)].mean()


class LabelAUROC(MultilabelAUROC):
    """Of the labels that some samples have and others not."""

    def compute(self) -> Tensor:  # type: ignore[override] # as torchmetrics does
        return super().compute()[_samples(self.confmat).all(dim=1)].mean()


class LabelAveragePrecision(MultilabelAveragePrecision):
    """Of the labels that some samples have."""

    def compute(self) -> Tensor:  # type: ignore[override] # as torchmetrics does
        return super().compute()[_samples(self.confmat)[:, 1]].mean()


def _samples(confmat: Tensor) -> Tensor:
    """Whether there are samples without and with each class, (classes, 2)."""
    return confmat[0].sum(dim=-1) > 0
