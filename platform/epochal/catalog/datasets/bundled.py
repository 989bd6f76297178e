"""The small datasets that scikit-learn installs, read from its files.

Importing scikit-learn takes about a second, which the first training step would wait for.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from epochal.errors import EpochalError


def read_bundled(name: str, skip_rows: int = 0, delimiter: str | None = ",") -> NDArray[np.float64]:
    """The numbers of one of scikit-learn's files, as (rows, columns).

    Raises:
        EpochalError: scikit-learn is not installed, or has no such file.
    """
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise EpochalError("this dataset comes with scikit-learn, which is not installed", "pip install scikit-learn")
    path = Path(package.origin).parent / "datasets" / "data" / name
    if not path.exists():
        raise EpochalError(f"the installed scikit-learn has no {name}", "pip install 'scikit-learn>=1.5'")
    return np.loadtxt(path, delimiter=delimiter, skiprows=skip_rows, ndmin=2)
