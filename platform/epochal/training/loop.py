"""The training loop of one worker."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from epochal.errors import NonFiniteLossError, TrainingError
from epochal.spec.job import JobSpec
from epochal.tracking.recorder import Recorder
from epochal.training import checkpoint, resuming, seeding, tensors, weights
from epochal.training.average import AveragedWeights
from epochal.training.batch_norm import refuse_shares
from epochal.training.checkpoint import Manifest
from epochal.training.control import Control, Noted, Phase, Progress, Saved
from epochal.training.intervals import Schedule, Timer
from epochal.training.left_out import LeftOut
from epochal.training.loader import Loaded
from epochal.training.parallel import DDP, Single, Strategy, compiled_nothing
from epochal.training.phases import stepper_for
from epochal.training.pictures import Pictures
from epochal.training.playing import State
from epochal.training.recompute import recompute
from epochal.training.sampler import sampler_of
from epochal.training.saver import Saver, Snapshot
from epochal.training.segment import Segment
from epochal.training.setup import Setup
from epochal.training.source import source_of
from epochal.training.step import Stepper
from epochal.training.stock import Stock
from epochal.training.tensors import Tensors
from epochal.training.train_state import TrainState
from epochal.training.validation import Validation
from epochal.training.window import Closed, ControlFlags, Window, clock_for
from epochal.training.worker import Worker

REPORT_SECONDS = 0.25


class Loop:
    """Windows of steps, with validations and checkpoints between them, over a ``segment`` of the training."""

    def __init__(
        self, setup: Setup, worker: Worker, folder: Path, recorder: Recorder, control: Control, segment: Segment
    ) -> None:
        control.tick("setup", 0)
        spec, train = setup.spec, setup.spec.train
        self.setup, self.spec, self.worker = setup, spec, worker
        self.folder, self.recorder, self.control, self.segment = folder, recorder, control, segment
        self.strategy = _strategy(spec, worker)
        if worker.is_first:
            checkpoint.clean(folder / checkpoint.FOLDER)
            weights.clean(folder)
        self.left_out = LeftOut(spec.data.on_error == "skip", spec.data.max_errors)
        self.sampler = sampler_of(setup.data, spec)
        self.source = source_of(setup, self.strategy, self.left_out)
        per_epoch = self.sampler.steps_per_epoch
        self.total_steps = self.sampler.total_steps(train)
        self.last_step = segment.last_step(self.total_steps, per_epoch)
        self._source_states: list[State] = []
        saved = folder / checkpoint.FOLDER
        # A whole training goes on from any: where it has fewer steps than before, it has nothing left to do.
        most = None if segment.until is None else self.last_step
        found = resuming.newest_sound(saved, most, self.strategy, control) if segment.resume else None
        self._noted: set[str] = set()
        self.stepper = self._stepper(fresh=found is None)
        chosen = train.average
        self.average = AveragedWeights(self.strategy, chosen, self.total_steps) if chosen else None
        self.validations = Schedule.of(train.validate_every, per_epoch)
        self.checkpoints = Schedule.of(spec.checkpoint.every, per_epoch)
        self.saver = Saver(folder, worker, spec.checkpoint.keep, spec.objective, control.saving, recorder)
        self.state = TrainState.of(spec)
        self.stock = Stock(setup, self.strategy, self.left_out, lambda: control.tick("train", self.state.step))
        self.stopped = False
        self._copies: Tensors = {}
        self.pictures = Pictures(setup, folder, self.strategy, self.note)
        self._save_timer, self._validate_timer = Timer(spec.checkpoint.every), Timer(train.validate_every)
        self._clock = clock_for(worker.device)
        self._window_length = 1
        self._last_loss = math.nan
        self._reported = -math.inf
        # Once all is built that every worker has to build alike. A checkpoint's generators come after it, and a worker
        # that was not there then goes on with these.
        seeding.start(seeding.derive(train.seed, "worker", worker.rank))
        if found is not None:
            self._go_on(*found)

    def _stepper(self, fresh: bool) -> Stepper:
        model, train = self.setup.model, self.spec.train
        if fresh and train.init_from is not None:
            matched = weights.start_from(model, Path(train.init_from), train.init_except)
            self.note(f"weights to start from: {matched}")
        weights.freeze(model, train.freeze)
        if train.gradient_checkpointing:
            recompute(model)
        self.strategy.wrap(model)
        self.strategy.module.train()
        refuse_shares(self.strategy.module, self.sampler, train, [self.worker.world_size])
        trained = {name: one for name, one in self.strategy.module.named_parameters() if one.requires_grad}
        return stepper_for(self.setup.task, self.setup.optimizer(trained), self.strategy, train)

    def _go_on(self, path: Path, manifest: Manifest) -> None:
        more = self.average.room(manifest.state.get("averaged", 0)) if self.average else {}
        if not tensors.restore(self.strategy.module, self.stepper.optimizer, path, manifest.state["optimizer"], more):
            self.note("the optimizer begins anew: the one that the training goes on from kept nothing, as momentum")
        self.stepper.precision.load(manifest.state["precision"])
        resuming.restore_generators(path, manifest, self.worker)
        self._source_states = resuming.source_states(path, manifest)
        mine = self._source_states[self.worker.rank :: self.worker.world_size]
        self.left_out.restore(one for state in mine for one in state.get("left_out", ()))
        self.state.restore(manifest)
        self._last_loss = manifest.state.get("loss", math.nan)  # older checkpoints have none

    def run(self) -> None:
        """Train to the segment's end, or until a stop. Afterwards everything is saved that somebody goes on from."""
        batches = self.source.read(self.worker, self.state.step, self.last_step, self._source_states)
        with closing(batches):
            while self.goes_on:
                self.between(self._window(batches))
        self.finish()
        self.wait()

    @property
    def goes_on(self) -> bool:
        """Whether the segment has steps left, and nobody wants it to end."""
        return self.state.step < self.last_step and not self.state.out_of_patience and not self.stopped

    def between(self, flags: ControlFlags) -> None:
        """Between two windows: validate and save, where that is due."""
        self.stopped = flags.stop
        # First: a checkpoint is among the best only by what was measured of its very weights, those of the last too.
        if self.validations.due(self.state.step) or flags.validate or not (self.stopped or self.goes_on):
            self._validate()
        new_best = self.state.at_best and self.spec.checkpoint.keep.best
        if self.checkpoints.due(self.state.step) or flags.save or new_best:
            self._save()
        self._tell(self.saver.finished())

    def finish(self) -> None:
        """After the last window: validate what was not yet, and begin to save it."""
        if not self.stopped and self.state.validated < self.state.step:
            self._validate()
        if self.state.saved < self.state.step and (self.segment.saved or self.stopped):
            self._save()

    def wait(self) -> None:
        """Until nothing is being saved."""
        self._tell(self.saver.wait())

    def abandon(self) -> None:
        """The training has failed: what was measured stays, and what is being saved gets a little time."""
        self.recorder.flush()
        self.saver.abandon()

    @property
    def completed(self) -> bool:
        """Whether no step is left to do, in whatever segment."""
        return not self.stopped and (self.state.step >= self.total_steps or self.state.out_of_patience)

    @property
    def beats(self) -> bool:
        """Whether the weights as they are now are wanted."""
        best, metrics = self.state.best, self.state.metrics
        if self.segment.beats is None or best is None:
            return True
        return replace(best, value=self.segment.beats).beaten_by(metrics.get(best.metric, math.nan))

    def _window(self, batches: Iterator[Loaded]) -> ControlFlags:
        """Steps up to the next point at which the workers compare notes; what they want to happen then."""
        clock, stepper, first = self._clock, self.stepper, self.state.step
        window = Window(first, clock)
        for step in range(first, self.window_end):
            clock.mark()
            self.stock.take(step)
            loaded = next(batches)
            clock.mark()
            self.control.tick("train", step)
            lr = stepper.set_lr(self.setup.lr_factor(step, self.total_steps, self.state.seen))
            gradients, norm = stepper.step(loaded, clock.mark)
            if self.average:
                self.average.update(step + 1)
            clock.mark()
            window.add(gradients, lr, norm, loaded.global_size)
            self.control.tick("train", step + 1)
        return self.take(window)

    def take(self, window: Window) -> ControlFlags:
        """Close a window whose steps are done; what the workers want to happen then.

        Raises:
            NonFiniteLossError
            NonFiniteStateError: a checkpoint would have held such weights.
            TrainingError: the workers have left out too many records.
        """
        closed = window.close(self.strategy, self._flags())
        self._record(closed)
        self._tell_left_out()
        if closed.flags.not_finite:  # on any worker: here all of them wait for it, and raise the same
            self._tell(self.saver.wait())
        self.left_out.refuse_beyond(closed.flags.left_out)
        try:
            window.raise_unless_finite(closed, self.strategy)
        except NonFiniteLossError:
            # The one being saved may know better: an earlier step, whose loss was finite and whose weights are not.
            self._tell(self.saver.wait())
            raise
        self.state.step = closed.records[-1].step
        self._last_loss = closed.records[-1].loss
        self._window_length = closed.next_length
        if self.spec.train.compile and compiled_nothing():
            told = "the task calls neither the model nor one of its parts (attributes that are modules)"
            self.note(f"train.compile has no effect: {told}")
        self._progress("train", closed.performance(self.setup.data.info.tokens))
        return closed.flags

    def epochs(self, steps: int) -> float:
        """How many so many steps are; 0 of a stream, which has none."""
        return steps / self.source.steps_per_epoch if self.source.steps_per_epoch else 0.0

    @property
    def window_end(self) -> int:
        """The step before which the next window ends."""
        step = self.state.step
        ends = [
            self.validations.after(step),
            self.checkpoints.after(step),
            step + self._window_length,
            self.last_step,
        ]
        return int(min(ends))

    def _flags(self) -> ControlFlags:
        """What this worker wants; time is the first worker's."""
        first = self.worker.is_first
        return ControlFlags(
            stop=self.control.stop_requested(),
            save=first and self._save_timer.due,
            validate=first and self._validate_timer.due,
            left_out=self.left_out.count,
            not_finite=self.saver.not_finite,
        )

    def _tell_left_out(self) -> None:
        """Each worker names its own."""
        for text in self.left_out.untold():
            self.control.report(Noted(text))

    def _record(self, closed: Closed) -> None:
        if not self.worker.is_first:
            return
        for record in closed.records:
            if not math.isfinite(record.loss):
                return
            metrics = {"train/loss": record.loss, "train/lr": record.lr}
            metrics |= {f"train/{name}": value for name, value in record.logs.items()}
            if record.grad_norm is not None:
                metrics["train/grad_norm"] = record.grad_norm
            self.recorder.log(record.step, metrics, record.timestamp)
        self.recorder.log(
            closed.records[-1].step, closed.performance(self.setup.data.info.tokens), closed.records[-1].timestamp
        )

    def _validate(self) -> None:
        """After the last step nothing that goes wrong here may undo the training."""
        state, done = self.state, self.state.step >= self.total_steps
        measured: dict[str, float] = {}
        self.strategy.settle()
        if self.setup.data.validation:
            self._validation.keeps = self.worker.is_first and self.pictures.wanted and not self.segment.trial
            with self.averaged():
                measured = self._validation.run(lambda: self.control.tick("validate", state.step), forgiving=done)
            for name, why in self._validation.failed.items():
                self.note(f"val/{name} is left out: {why}")
        self._tell_left_out()
        self._validate_timer.restart()
        epoch = {"epoch": self.epochs(state.step)} if self.source.steps_per_epoch else {}
        self.recorder.log(state.step, {**measured, **epoch})
        try:
            state.judge({"train/loss": self._last_loss, **measured})
        except TrainingError as error:
            if not done:
                raise
            self.note(str(error))
        if self.setup.data.validation and self._validation.kept.batches:
            self._keep_pictures()
        self._progress("validate", {})

    def _keep_pictures(self) -> None:
        state = self.state
        named = f", {state.best.metric} {state.metrics.get(state.best.metric, math.nan):.5g}" if state.best else ""
        kept = self._validation.kept._replace(caption=f"step {state.step}{named}")
        with self.averaged():
            self.pictures.take("best" if state.at_best else "last", kept)

    def averaged(self) -> AbstractContextManager[object]:
        """The context in which the model has the means of its weights, where those are asked for."""
        return self.average.in_place() if self.average else nullcontext()

    def note(self, text: str) -> None:
        """Tell a person, once."""
        if self.worker.is_first and text not in self._noted:
            self._noted.add(text)
            self.control.report(Noted(text))

    @cached_property
    def _validation(self) -> Validation:
        return self.measure("val")

    def measure(self, part: Literal["val", "test"]) -> Validation:
        """What measures the model on that part of the data."""
        train = self.spec.train
        batch_size = train.micro_batch_size or -(-train.global_batch_size // self.worker.world_size)
        return Validation(self.setup, self.strategy, self.stepper.precision, batch_size, part, self.left_out)

    def _save(self) -> None:
        self.control.tick("checkpoint", self.state.step)
        # No gap in the curve: what led here survives whatever this checkpoint survives (see ``Saver``).
        self.recorder.flush()
        self._tell(self.saver.wait())  # it writes the copy that is overwritten next
        self.saver.start(self._snapshot())
        self.state.saved = self.state.step
        self._save_timer.restart()

    def _snapshot(self) -> Snapshot:
        state = self.state
        self.strategy.settle()
        more = self.average.tensors() if self.average else {}
        captured, plain = tensors.capture(self.strategy.module, self.stepper.optimizer, self.worker, self._copies, more)
        self._copies, precision = captured, self.stepper.precision.state()
        manifest = Manifest(
            step=state.step,
            epoch=int(self.epochs(state.step)),
            world_size=self.worker.world_size,
            strategy=self.spec.resources.strategy,
            metrics=state.metrics,
            validated=state.validated,
            state={
                **state.state(),
                **(self.average.state() if self.average else {}),
                "loss": self._last_loss,
                "optimizer": plain,
                "precision": precision,
            },
        )
        trained = tensors.trained(self.strategy.module)
        own = {**seeding.capture(self.worker.device), "source": self.source.state()}
        if self.left_out.count:
            own["source"]["left_out"] = self.left_out.state()
        return Snapshot(manifest, captured, trained, own, state.at_best)

    def _tell(self, saved: list[Saved]) -> None:
        for one in saved:
            self.control.report(one)

    def _progress(self, phase: Phase, extra: dict[str, float]) -> None:
        """Report where the training is, a few times a second at the most."""
        now = time.monotonic()
        done = self.state.step >= self.total_steps
        if not self.worker.is_first or (now - self._reported < REPORT_SECONDS and not done):
            return
        self._reported = now
        self.control.report(
            Progress(
                phase=phase,
                step=self.state.step,
                total_steps=self.total_steps,
                epoch=int(self.epochs(self.state.step)),
                epochs=self.epochs(self.total_steps),
                metrics={**self.state.metrics, "train/loss": self._last_loss, **extra},
            )
        )


def _strategy(spec: JobSpec, worker: Worker) -> Strategy:
    """A lone worker needs none of the two."""
    if worker.world_size == 1:
        return Single(worker, spec.train)
    if spec.resources.strategy == "ddp":
        return DDP(worker, spec.train)
    # Imported by those who use it: it takes a second.
    from epochal.training import sharding

    return sharding.FSDP(worker, spec.train, sharding.BLOCK_PARAMETERS)
