"""The shape of a searcher and of a trial scheduler. Adding one is one file with an entry, and one line in a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import ConfigDict

from epochal.errors import Problem
from epochal.spec.job import JobSpec
from epochal.spec.section import Section


class Params(Section):
    """An entry's own parameters, beside its ``name`` in the spec. Describe each with a docstring below it.

    What every searcher has (``seed``, ``from``) and every trial scheduler (``min``) are fields of the spec itself.
    """

    model_config = ConfigDict(allow_inf_nan=False)


BuildT = TypeVar("BuildT")


@dataclass(frozen=True, kw_only=True)
class Entry(Generic[BuildT]):
    """One searcher or trial scheduler that a sweep can name.

    ``source`` is the paper or documentation it follows; ``build`` makes it from its validated ``params`` and the spec.
    ``problems(params, spec)`` are those of a spec that it cannot work with, with dotted paths of the whole spec
    (``sweep.trials``). It is asked wherever a spec is checked, so neither it nor the module imports optuna.
    """

    summary: str
    source: str
    params: type[Params]
    build: BuildT
    problems: Callable[[Any, JobSpec], Iterable[Problem]] = lambda params, spec: ()
