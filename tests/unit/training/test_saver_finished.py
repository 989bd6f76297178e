"""What workers learn of a checkpoint beside the training, and when."""

from __future__ import annotations

from pathlib import Path

import pytest

from epochal.errors import NonFiniteStateError
from epochal.spec.job import Keep
from epochal.training.saver import Saver
from epochal.training.worker import Worker


class Ending:
    """A saver's thread that ends, with an error, while it is asked whether it is alive."""

    def __init__(self, saver: Saver) -> None:
        self._saver = saver

    def is_alive(self) -> bool:
        self._saver._error = NonFiniteStateError(3, 1, "model.weight")
        return False

    def join(self, timeout: float) -> None:
        return


def test_weights_that_are_not_finite_are_raised_by_all_together_or_not_yet(tmp_path: Path) -> None:
    saver = Saver(tmp_path, Worker(), Keep(), None)
    saver._thread = Ending(saver)  # type: ignore[assignment]
    assert saver.finished() == []
    assert saver.not_finite
    with pytest.raises(NonFiniteStateError):
        saver.wait()
