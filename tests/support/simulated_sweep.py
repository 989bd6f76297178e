"""A sweep without workers: a controller is told what trainings would have told it, in virtual time."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from epochal.sweeps.controller import Controller
from epochal.sweeps.trials import Asked, Command, Copy, End, Failed, Input, Interrupted, Reached, Run

Outcome = Callable[[Run], float | None]
"""The objective of a segment; None where it fails."""


@dataclass
class Simulation:
    """A controller with ``slots`` workers. How long a segment takes is its length, times a random factor."""

    controller: Controller
    outcome: Outcome
    slots: int = 1
    seed: int = 0
    inputs: list[Input] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    trained: float = 0.0
    """Over all trials."""

    def __post_init__(self) -> None:
        self._draw = Random(self.seed)
        self._time = 0.0
        self._free: list[int | None] = [None] * self.slots
        self._busy: list[tuple[float, int, float, Run]] = []
        self._saved: dict[int, float] = {}

    def run(self, answers: int = 1_000_000) -> Simulation:
        """On to the end of the sweep, or for so many answers of its workers."""
        for _ in range(answers):
            while self._free and (run := self._asked(self._free[0])):
                self._free.pop(0)
                length = run.until - self._saved.get(run.trial, 0.0)
                ends = self._time + length * self._draw.uniform(0.5, 1.5)
                heapq.heappush(self._busy, (ends, run.trial, length, run))
            if not self._busy:
                break
            self._answer(*heapq.heappop(self._busy))
        return self

    def lose(self) -> None:
        """All workers are lost, and others come."""
        self._free, self._busy = [None] * self.slots, []
        self.tell(Interrupted())

    def tell(self, told: Input) -> list[Command]:
        commands = self.controller.step(told)
        self.inputs.append(told)
        self.commands += commands
        for command in commands:
            if isinstance(command, Copy):
                self._saved[command.trial] = command.length
            if isinstance(command, End) and any(run.trial == command.trial for *_, run in self._busy):
                self._busy = [busy for busy in self._busy if busy[1] != command.trial]
                heapq.heapify(self._busy)
                self._free.append(None)
        return commands

    def _asked(self, holds: int | None) -> Run | None:
        return next((command for command in self.tell(Asked(holds)) if isinstance(command, Run)), None)

    def _answer(self, ends: float, number: int, length: float, run: Run) -> None:
        self._time = ends
        self._free.append(number)
        value = self.outcome(run)
        if value is None:
            self.tell(Failed(number, "OUT_OF_MEMORY", "no memory is left"))
            return
        self.trained += length
        self._saved[number] = run.until
        self.tell(Reached(number, run.until, value))
