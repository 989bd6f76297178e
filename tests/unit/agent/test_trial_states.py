"""One trial is given the state of another, once, whatever is killed meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from epochal.agent.sweep_conductor import Conductor, Sweep
from epochal.agent.sweep_journal import SweepJournal
from epochal.agent.sweep_slots import Orders
from epochal.agent.trial_states import checkpoints, copy_state, result_of
from epochal.engine.gang import Stop
from epochal.engine.payload import TrainPayload
from epochal.ledger.sweep_values import NewInput
from epochal.sweeps.controller import Controller
from epochal.sweeps.inputs import to_json
from epochal.sweeps.trials import Asked, Copy, Measured, Reached, Run, Trial, TrialState
from epochal.tracking.desired_run import model_folder
from epochal.training import checkpoint
from sweep_pieces import sweep_spec

SPEC = sweep_spec(full=4, scheduler={"name": "pbt", "min": "1ep", "quantile": 0.5}, search={"name": "random"}, trials=2)


def save(folder: Path, trial: int, step: int) -> None:
    path = checkpoints(folder, trial) / checkpoint.name_of(step)
    path.mkdir(parents=True)
    (path / checkpoint.MANIFEST).write_text(f"of trial {trial}")


def saved(folder: Path, trial: int) -> Mapping[int, str]:
    found = checkpoints(folder, trial)
    return {
        step: (found / checkpoint.name_of(step) / checkpoint.MANIFEST).read_text() for step in checkpoint.steps(found)
    }


def test_a_copy_takes_the_place_of_what_the_trial_had_and_is_made_once(tmp_path: Path) -> None:
    save(tmp_path, 0, 10)
    save(tmp_path, 0, 20)
    save(tmp_path, 1, 10)
    for _ in range(2):
        copy_state(tmp_path, Copy(1, 0, 1.0), 10)
        assert saved(tmp_path, 1) == {10: "of trial 0"}
    save(tmp_path, 1, 15)
    copy_state(tmp_path, Copy(1, 0, 1.0), 10)
    assert saved(tmp_path, 1) == {15: "of trial 1", 10: "of trial 0"}
    copy_state(tmp_path, Copy(1, 0, 2.0), 20)
    assert saved(tmp_path, 1) == {20: "of trial 0"}


class Untold:
    """A ledger that nothing was told, and that is told nothing."""

    def inputs(self, job_id: str) -> list[Any]:
        return []

    def requests(self, job_id: str, after: int) -> list[Any]:
        return []


class Lease:
    job_id = "swept"

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch


class Nobody:
    def swept(self, progress: Any) -> None:
        return


@pytest.mark.parametrize("made", [False, True])
def test_the_next_attempt_makes_the_copies_that_a_killed_agent_did_not_come_to(tmp_path: Path, made: bool) -> None:
    """The agent died right after it had written down that one trial takes over the other's state."""
    killed = SweepJournal(cast(Any, Untold()), cast(Any, Lease(1)), tmp_path, lambda: False)
    killed.replayed()
    controller, copies = Controller.of(SPEC), []
    runs = []
    for told in (Asked(), Asked(), Reached(0, 1.0, 0.9, step=10), Reached(1, 1.0, 0.1, step=10)):
        commands = controller.step(told)
        copies += [one for one in commands if isinstance(one, Copy)]
        runs += [one for one in commands if isinstance(one, Run)]
        killed.tell(NewInput(to_json(told, commands)))
    assert copies == [Copy(1, 0, 1.0)]
    save(tmp_path, 0, 10)
    save(tmp_path, 1, 10)
    if made:
        copy_state(tmp_path, copies[0], 10)
        save(tmp_path, 1, 15)

    spec = SPEC.model_dump(mode="json", exclude_unset=True)
    journal = SweepJournal(cast(Any, Untold()), cast(Any, Lease(2)), tmp_path, lambda: False)
    sweep = Sweep(SPEC, TrainPayload(spec, ""), tmp_path, journal, Orders(lambda: None))
    Conductor(sweep, cast(Any, None), cast(Any, Nobody()), Stop()).begin()
    assert saved(tmp_path, 1) == {10: "of trial 0"} | ({15: "of trial 1"} if made else {})
    assert saved(tmp_path, 0) == {10: "of trial 0"}


def test_a_link_stays_one_and_no_folder_elsewhere_is_copied(tmp_path: Path) -> None:
    """Code of the trial could have made it, to what the agent alone may read."""
    elsewhere, folder = tmp_path / "secrets", tmp_path / "jobs" / "one"
    elsewhere.mkdir()
    (elsewhere / "token").write_text("secret")
    save(folder, 0, 10)
    state = checkpoints(folder, 0) / checkpoint.name_of(10)
    (state / "link").symlink_to(elsewhere / "token")
    copy_state(folder, Copy(1, 0, 1.0), 10)
    copied = checkpoints(folder, 1) / checkpoint.name_of(10)
    assert (copied / "link").is_symlink()
    assert (copied / checkpoint.MANIFEST).samefile(state / checkpoint.MANIFEST)
    (checkpoints(folder, 0) / checkpoint.name_of(20)).symlink_to(elsewhere)
    with pytest.raises(PermissionError, match="leads out"):
        copy_state(folder, Copy(1, 0, 2.0), 20)
    assert not list((folder / "trials").rglob("token"))


def test_of_the_best_trial_before_an_extension_nothing_is_left_beside_the_new_one(tmp_path: Path) -> None:
    """A model that was packaged of it was taken for that of the new weights, where these could not be packaged."""
    for number in (0, 1):
        weights = tmp_path / "trials" / f"{number:05d}" / "model" / "weights.safetensors"
        weights.parent.mkdir(parents=True)
        weights.write_text(f"of trial {number}")

    def told(number: int) -> dict[str, Any]:
        best = Trial(number, {}, TrialState.COMPLETED, 9.0, (Measured(9.0, 0.5),))
        return result_of(best, {"val/loss": 0.5}, 90, SPEC.model_dump(mode="json"), tmp_path)

    assert told(0)["weights"] == str(tmp_path / "model")
    packaged = model_folder(tmp_path)
    packaged.mkdir()
    assert told(1)["trial"] == 1
    assert (tmp_path / "model" / "weights.safetensors").read_text() == "of trial 1"
    assert not packaged.exists()
