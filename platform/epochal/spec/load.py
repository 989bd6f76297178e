"""A spec file to a ``LoadedSpec``, or every problem in it at once.

Text becomes a tree with places (``source``), ``--set`` changes it (``overrides``), pydantic checks each field
(``problems``), then what is left when the wrong fields are taken out goes through the rules across fields (``rules``)
and the catalog's checks, so that one mistake does not hide another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from epochal.errors import Problem, SpecError
from epochal.spec import overrides as set_options
from epochal.spec.job import JobSpec
from epochal.spec.problems import Finding, field_problems
from epochal.spec.rules import broken
from epochal.spec.section import Section
from epochal.spec.source import parse, read
from epochal.spec.tree import Node, Path, dotted, leaves, overlaps

Check = Callable[[Mapping[str, Any]], list[Problem]]
"""Problems of a spec that this package cannot know of, such as names that the catalog lacks.

It gets the spec as written (without defaults), less the fields that are wrong by themselves; paths in the problems are
dotted, and their lines are filled in here.
"""

_ROUNDS = 8  # taking a field out may leave its section without one that it needs, and so on upwards

AnySpec = TypeVar("AnySpec", bound=Section)


@dataclass(frozen=True)
class Kind(Generic[AnySpec]):
    """What a file can hold.

    ``broken`` are the rules across its fields, less those that read one of the paths given, which are wrong by
    themselves. ``stand_ins`` take the place of fields that it cannot be without, for the rules' sake.
    """

    model: type[AnySpec]
    broken: Callable[[AnySpec, Sequence[Path]], list[Problem]]
    stand_ins: Mapping[str, Any]


JOB = Kind(
    JobSpec,
    broken,
    {
        "version": 1,
        "name": "stand-in",
        "model": {"name": "stand-in"},
        "data": {"name": "stand-in"},
        "train": {"epochs": 1},
    },
)


@dataclass(frozen=True)
class LoadedSpec:
    """A spec that can be run.

    ``folder`` is where its relative paths start. ``origins`` says for every value of ``spec.model_dump(mode="json")``,
    by its dotted path, where it comes from: ``job.yaml:12``, ``--set`` or ``default``.
    """

    spec: JobSpec
    source: str
    folder: FilePath
    origins: dict[str, str]

    @property
    def code_folder(self) -> FilePath:
        """The folder of the code that it ships; its own where it ships none."""
        return self.folder / self.spec.code.dir if self.spec.code else self.folder

    def placed(self, error: SpecError) -> SpecError:
        """An ``error`` about this spec, found later, with the lines of its values in the file."""
        return SpecError(self.source, tuple(map(self._at_its_line, error.problems)))

    def _at_its_line(self, problem: Problem) -> Problem:
        steps = problem.path.split(".")
        above = (".".join(steps[:count]) for count in range(len(steps), 0, -1))  # of an item in a list, for one
        known = (self.origins.get(path) or self.origins.get(f"{path}.name", "") for path in above)
        origin = next(filter(None, known), "")
        file, _, line = origin.rpartition(":")
        return replace(problem, line=int(line)) if file else replace(problem, origin=origin)


def load_spec(source: str | FilePath, overrides: Sequence[str] = (), checks: Sequence[Check] = ()) -> LoadedSpec:
    """Read the spec in the file ``source`` (``-`` is standard input), with ``path=value`` overrides.

    Raises:
        SpecError: with every problem, in the order of the file.
    """
    path = FilePath.cwd() / "stdin" if source == "-" else FilePath(source).absolute()
    return load_text(read(source), path, overrides, checks, shown="stdin" if source == "-" else str(source))


def load_text(
    text: str | bytes,
    path: FilePath,
    overrides: Sequence[str] = (),
    checks: Sequence[Check] = (),
    shown: str | None = None,
) -> LoadedSpec:
    """Read a spec that stands, or could stand, in the file ``path``, which errors call ``shown``.

    Raises:
        SpecError: with every problem, in the order of the file.
    """
    name = shown or str(path)
    written, twice = parse(text, name)
    changed, unset = set_options.apply(written, overrides)
    tree = _in_the_written_experiment(written, changed)
    spec = _examined(JOB, tree, name, [*twice, *unset], checks)
    return LoadedSpec(spec, name, path.parent, dict(_origins(tree, spec, path.name)))


def load_kind(kind: Kind[AnySpec], source: str | FilePath, overrides: Sequence[str] = ()) -> AnySpec:
    """Read a file of another kind than a job's (``-`` is standard input), with ``path=value`` overrides.

    Raises:
        SpecError: with every problem, in the order of the file.
    """
    name = "stdin" if source == "-" else str(source)
    written, twice = parse(read(source), name)
    tree, unset = set_options.apply(written, overrides)
    return _examined(kind, tree, name, [*twice, *unset])


def _in_the_written_experiment(written: Node, changed: Node) -> Node:
    """A job that is given another name for this once stays in the experiment of its spec, beside its likes."""
    before, after = written.at(("name",)), changed.at(("name",))
    experiment = changed.at(("experiment",))
    if before is None or after is None or before.content == after.content or (experiment and experiment.content):
        return changed
    return changed.put(("experiment",), before)


def _examined(
    kind: Kind[AnySpec], tree: Node, name: str, known: Sequence[Problem], checks: Sequence[Check] = ()
) -> AnySpec:
    """The spec.

    Raises:
        SpecError: with everything wrong in it, ``known`` included.
    """
    spec, found = _validated(kind, tree)
    left, wrong, best_effort = _without_wrong(kind, tree, found) if spec is None else (tree, [], spec)
    problems = [_placed(tree, finding) for finding in found]
    for problem in (problem for check in checks for problem in check(left.plain())):
        if not any(overlaps(tree.resolve(problem.path), path) for path in wrong):
            problems.append(_placed_by_name(tree, problem))
    if best_effort is not None:
        problems += [_placed_by_name(tree, problem) for problem in kind.broken(best_effort, wrong)]
    if spec is None or problems or known:
        raise SpecError(name, _in_order([*known, *problems]))
    return spec


def _validated(
    kind: Kind[AnySpec], tree: Node, stand_ins: Mapping[str, Any] | None = None
) -> tuple[AnySpec | None, list[Finding]]:
    try:
        return kind.model.model_validate({**tree.plain(), **(stand_ins or {})}), []
    except ValidationError as error:
        return None, field_problems(error, kind.model)


def _without_wrong(kind: Kind[AnySpec], tree: Node, found: list[Finding]) -> tuple[Node, list[Path], AnySpec | None]:
    """What is left of ``tree`` without its wrong fields, their paths, and the spec that the rest makes.

    A section that lacks a required field goes as a whole. What the spec cannot be without has a stand-in.
    """
    wrong: list[Path] = []
    stand_ins: dict[str, Any] = {}
    for _ in range(_ROUNDS):
        for path in map(_removable, found):
            wrong.append(path)
            tree = tree.without(path)
            if str(path[0]) in kind.stand_ins and len(path) == 1:
                stand_ins[str(path[0])] = kind.stand_ins[str(path[0])]
        spec, found = _validated(kind, tree, stand_ins)
        if spec is not None:
            return tree, wrong, spec
    return tree, wrong, None


def _removable(finding: Finding) -> Path:
    """The path to take out: the section of what is missing, and the whole of a list of which one item is wrong."""
    path = finding.path[:-1] if finding.missing and len(finding.path) > 1 else finding.path
    for index, step in enumerate(path):
        if isinstance(step, int):
            return path[:index]
    return path


def _placed(tree: Node, finding: Finding) -> Problem:
    """The problem with its line: the value's, the key's where that is wrong or the value fills lines of its own."""
    node = tree.at(finding.path)
    at_key = finding.at_key or node is None or (isinstance(node.content, dict | list) and bool(node.content))
    place = tree.place_of(finding.path, of_key=at_key)
    if place is None or place.line is None:
        return replace(finding.problem, origin=set_options.ORIGIN)
    origin = "" if node is not None or finding.missing else "default"
    return replace(finding.problem, line=place.line, column=place.column, origin=origin)


def _placed_by_name(tree: Node, problem: Problem) -> Problem:
    if problem.line is not None or problem.origin:
        return problem
    return _placed(tree, Finding(tree.resolve(problem.path), problem))


def _in_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """By their place in the file, ``--set`` last; of several at one path the first, which knows most."""
    first: dict[tuple[str, int | None], Problem] = {}
    for problem in problems:
        first.setdefault((problem.path, problem.line), problem)
    return tuple(sorted(first.values(), key=lambda p: (p.line is None, p.line or 0, p.column or 0)))


def _origins(tree: Node, spec: JobSpec, file: str) -> Iterator[tuple[str, str]]:
    for path, _ in leaves(spec.model_dump(mode="json")):
        node = tree.at(path)
        if node is None:
            yield dotted(path), "default"
        else:
            yield dotted(path), set_options.ORIGIN if node.place.line is None else f"{file}:{node.place.line}"
