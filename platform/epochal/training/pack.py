"""Train several trials at once in one worker, each with the result that it has alone.

A member of a pack is a ``Loop`` like any other: it validates, saves, judges, stops and ends by itself. Only the steps
of all members are taken together, a window at a time. Who leaves (at the end of its segment, stopped, out of patience,
or because its loss is not finite) does so between two windows, and the others go on as a smaller pack.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor

from epochal.spec.job import JobSpec
from epochal.tracking.recorder import Recorder
from epochal.training import seeding
from epochal.training.control import Control, Noted
from epochal.training.ensemble import Ensemble
from epochal.training.fit import FitResult, ended
from epochal.training.loader import Loaded, Loader
from epochal.training.loop import Loop
from epochal.training.pack_check import ensemble_of
from epochal.training.packing import key_of, packable
from epochal.training.sampler import Share
from epochal.training.segment import WHOLE, Segment
from epochal.training.setup import Setup
from epochal.training.step import Gradients
from epochal.training.window import Window, clock_for
from epochal.training.worker import Worker


@dataclass(frozen=True)
class Member:
    """One trial of a pack: what ``fit`` takes. All members share their data, and have the same ``packing.key_of``."""

    setup: Setup
    folder: Path
    recorder: Recorder
    control: Control
    segment: Segment = WHOLE


@dataclass(frozen=True)
class Packed:
    """How each member ended, in their order: its result, or what it raised, as ``fit`` would have raised it.

    ``why_alone``: why they were trained one after another, empty where they were not.
    """

    outcomes: tuple[FitResult | Exception, ...]
    why_alone: str = ""


def fit_pack(members: Sequence[Member], worker: Worker) -> Packed:
    """Train the members in one worker, as ``fit`` would train each.

    Members that go on from different steps are different packs, one after another. Where the models cannot be trained
    as one, the members are trained one after another, and each of them reports why.
    """
    with seeding.deterministic(members[0].setup.spec.train.deterministic):
        trainees = [_Trainee(member, worker) for member in members]
        try:
            streams = any(member.setup.data.endless for member in members)
            why = "its data is a stream" if streams else _refused([member.setup.spec for member in members])
            ready = sorted((one for one in trainees if one.outcome is None), key=_step)
            for _, group in groupby(ready, _step):
                alike = list(group)
                why = why or (_together(alike) if len(alike) > 1 else "")
                for one in alike:
                    if why and one.outcome is None:
                        one.loop.control.report(Noted(f"not packed with other trials: {why}"))
                    one.alone()
        except BaseException:
            for one in trainees:
                if one.outcome is None:
                    one.loop.abandon()
            raise
        return Packed(tuple(one.outcome for one in trainees if one.outcome is not None), why)


def _refused(specs: Sequence[JobSpec]) -> str:
    """Why trials of these specs cannot be a pack, whatever their models are."""
    unlike = "they differ in more than scalar settings and seeds" if len(set(map(key_of, specs))) > 1 else ""
    return next(filter(None, map(packable, specs)), unlike)


class _Trainee:
    """A member, with the random generators that it would have alone."""

    loop: Loop
    outcome: FitResult | Exception | None = None

    def __init__(self, member: Member, worker: Worker) -> None:
        self._device = worker.device
        try:
            self.loop = Loop(member.setup, worker, member.folder, member.recorder, member.control, member.segment)
        except Exception as error:
            self.outcome = error
        self._generators = seeding.hold(self._device)

    def does(self, what: Callable[[Loop], FitResult | None]) -> None:
        """Do something that its loop would do alone. A result, or whatever is raised, is its outcome."""
        seeding.put_back(self._generators, self._device)
        try:
            self.outcome = what(self.loop)
        except Exception as error:
            self.loop.abandon()
            self.outcome = error
        self._generators = seeding.hold(self._device)

    def alone(self) -> None:
        """Train to the end without others."""
        if self.outcome is None:
            self.does(_train)


def _together(trainees: Sequence[_Trainee]) -> str:
    """Why they cannot train together. What fails for all of them is the outcome of each."""
    try:
        return _Pack(trainees).train()
    except Exception as error:
        for trainee in trainees:
            if trainee.outcome is None:
                trainee.loop.abandon()
                trainee.outcome = error
        return ""


def _step(trainee: _Trainee) -> int:
    return trainee.loop.state.step


def _train(loop: Loop) -> FitResult:
    loop.run()
    return ended(loop)


def _end(loop: Loop) -> FitResult:
    loop.wait()
    return ended(loop)


class _Pack:
    """Members that stand at the same step."""

    def __init__(self, trainees: Sequence[_Trainee]) -> None:
        self._trainees = list(trainees)
        self._clock = clock_for(trainees[0].loop.worker.device)
        self._schedules: list[int] = []

    def train(self) -> str:
        """Until one member is left, or none; why they cannot train together, empty where they could."""
        self._leave()
        while len(self._trainees) > 1:
            loops = [trainee.loop for trainee in self._trainees]
            reader = _Reader(loops)
            generators = seeding.capture(loops[0].worker.device)
            with closing(reader):
                loaded = reader.peek()
                if seeding.capture(loops[0].worker.device) != generators:
                    return "reading its data draws random numbers"
                ensemble = ensemble_of([loop.stepper for loop in loops], loaded, reader.shared)
                if isinstance(ensemble, str):
                    return ensemble
                ensemble.bind()
                self._schedules = _schedules(loops)
                while all(trainee.outcome is None and trainee.loop.goes_on for trainee in self._trainees):
                    self._window(ensemble, reader)
            self._leave()
        return ""

    def _rates(self, loops: Sequence[Loop], step: int) -> list[float]:
        """Each member's learning rate. What members with the same schedule multiply their peak by is computed once."""
        known = {
            one: loops[one].setup.lr_factor(step, loops[one].total_steps, loops[one].state.seen)
            for one in set(self._schedules)
        }
        return [loop.stepper.peaks[0] * known[one] for loop, one in zip(loops, self._schedules, strict=True)]

    def _leave(self) -> None:
        """Let those go who have nothing left to do. Their states are written at the same time."""
        leaving = [trainee for trainee in self._trainees if trainee.outcome is None and not trainee.loop.goes_on]
        for trainee in leaving:
            trainee.does(Loop.finish)
        for trainee in leaving:
            if trainee.outcome is None:
                trainee.does(_end)
        self._trainees = [trainee for trainee in self._trainees if trainee.outcome is None]

    def _window(self, ensemble: Ensemble, reader: _Reader) -> None:
        """Take the steps of a window together; then each member does what it would do after it."""
        loops, clock, steps = [trainee.loop for trainee in self._trainees], self._clock, _Steps()
        first = loops[0].state.step
        with ensemble.kernels():
            for step in range(first, min(loop.window_end for loop in loops)):
                clock.mark()
                loaded = reader.next()
                clock.mark()
                loops[0].control.tick("train", step)
                rates = self._rates(loops, step)
                clock.mark()  # forward and backward are one here, and nobody is waited for
                gradients = ensemble.gradients(loaded.batch, loaded.size, reader.shared)
                clock.mark()
                norms = ensemble.update(rates)
                clock.mark()
                steps.add(gradients, rates, norms, loaded.size)
        windows = steps.windows(first, ensemble.clips, clock.between())
        for member, (trainee, window) in enumerate(zip(self._trainees, windows, strict=True)):
            ensemble.settle(member)
            trainee.does(partial(_after, window))


def _after(window: Window, loop: Loop) -> None:
    loop.control.tick("train", window.first_step + len(window.losses))
    loop.between(loop.take(window))


def _schedules(loops: Sequence[Loop]) -> list[int]:
    """For each member the first one that has the same learning rates, as factors on its peak."""
    alike = [
        (loop.total_steps, loop.spec.train.lr_schedule, None if loop.state.watched is None else member)
        for member, loop in enumerate(loops)
    ]
    return [alike.index(one) for one in alike]


@dataclass
class _Steps:
    """What is kept of the steps of a window, each with a value a member."""

    losses: list[Tensor] = field(default_factory=list)
    weights: list[float | Tensor] = field(default_factory=list)
    rates: list[list[float]] = field(default_factory=list)
    norms: list[Tensor] = field(default_factory=list)
    timestamps: list[float] = field(default_factory=list)
    samples: int = 0

    def add(self, gradients: Gradients, rates: list[float], norms: Tensor | None, samples: int) -> None:
        self.losses.append(gradients.loss)
        self.weights.append(gradients.weight)
        self.rates.append(rates)
        if norms is not None:
            self.norms.append(norms)
        self.timestamps.append(time.time())
        self.samples += samples

    def windows(self, first: int, clips: Sequence[bool], seconds: list[float]) -> Iterator[Window]:
        """One for each member, as it would have filled it alone. ``clips``: whose gradients are clipped."""
        losses, norms = _columns(self.losses), _columns(self.norms) if self.norms else []
        counted = [weight for weight in self.weights if isinstance(weight, Tensor)]
        weights = _columns(counted) if counted else []
        for member, clip in enumerate(clips):
            yield Window(
                first,
                _Played(seconds),
                losses=losses[member],
                weights=list(weights[member]) if weights else self.weights,
                rates=[rates[member] for rates in self.rates],
                norms=list(norms[member]) if clip else [None] * len(self.rates),
                timestamps=self.timestamps,
                samples=self.samples,
            )


class _Played:
    """What a clock has measured, for one more reader."""

    def __init__(self, seconds: list[float]) -> None:
        self._seconds = seconds

    def mark(self) -> None:
        return

    def between(self) -> list[float]:
        return self._seconds


def _columns(steps: Sequence[Tensor]) -> list[list[Tensor]]:
    """Each member's values by step, on the CPU."""
    return [list(column) for column in torch.stack(list(steps)).cpu().unbind(1)]


class _Reader:
    """The batches of several members: one for all where ``shared``, else (members, samples, ...)."""

    def __init__(self, loops: Sequence[Loop]) -> None:
        first = loops[0]
        self.shared = all(loop.sampler == first.sampler for loop in loops)
        readers = loops[:1] if self.shared else loops
        last = max(loop.last_step for loop in loops)
        shares = [loop.sampler.shares(0, 1, first.state.step, last) for loop in readers]
        train, workers = first.setup.data.train, first.spec.data.loader_workers
        self._batches = Loader(train, first.worker.device, workers, first.spec.train.seed).train(_joined(shares), 0)
        self._members = len(readers)
        self._peeked: Loaded | None = None

    def peek(self) -> Loaded:
        """The next batch, which ``next`` gives again."""
        self._peeked = self.next()
        return self._peeked

    def next(self) -> Loaded:
        if self._peeked is not None:
            peeked, self._peeked = self._peeked, None
            return peeked
        loaded = next(self._batches)
        if self.shared:
            return loaded
        size = loaded.global_size
        batch = {name: tensor.view(self._members, size, *tensor.shape[1:]) for name, tensor in loaded.batch.items()}
        return Loaded(batch, size, size)

    def close(self) -> None:
        self._batches.close()


def _joined(shares: Sequence[Iterator[Share]]) -> Iterator[Share]:
    """The members' shares of a step as one, one member's after another's."""
    for together in zip(*shares, strict=True):
        yield together[0]._replace(indices=[index for share in together for index in share.indices])
