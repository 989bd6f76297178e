"""What `epochal run` makes of inputs that people have, as a person types it."""

from __future__ import annotations

from pathlib import Path

import made
import numpy as np
import pytest
from PIL import Image
from typist import Typist

pytestmark = pytest.mark.slow


def test_01_a_doubled_column_is_refused(typist: Typist) -> None:
    made.table(typist.folder, made.two_numbers("a,a,y"))
    ended = typist.run()
    assert ended["code"] != 0
    assert "found 'a' as the name of more than one column" in ended["said"] + ended.get("message", "")


@pytest.mark.parametrize("start", [1_700_000_000, 0])
def test_04_time_stamps_are_worth_what_seconds_are(start: int, typist: Typist) -> None:
    train = {"epochs": 40, "global_batch_size": 16, "optimizer": {"name": "adam", "lr": 0.05}}
    made.table(typist.folder, made.stamps(start), train=train)
    assert typist.run()["metrics"]["val/accuracy"] == 1


def test_06_a_last_batch_of_one_is_the_same_on_one_and_two_workers(typist: Typist) -> None:
    model = {"name": "mlp", "params": {"hidden": [8], "norm": "batch"}}
    made.table(typist.folder, made.two_numbers(count=17))
    made.job(typist.folder, {"name": "csv", "params": {"path": "t.csv", "target": "y", "validation": 0}}, model=model)
    ended = [typist.run("-s", f"resources.workers={workers}") for workers in (1, 2)]
    assert len({(one["code"], one.get("state")) for one in ended}) == 1
    for one in ended:
        assert "leaves a batch of a single sample, which the batch norm hidden.0.1" in one["said"] + one["message"]


def test_07_r2_of_one_sample_is_left_out(typist: Typist) -> None:
    made.table(typist.folder, "a,y\n" + "".join(f"{n / 10},{1.5 * n}\n" for n in range(5)))
    ended = typist.run()
    assert ended["state"] == "SUCCEEDED"
    assert {"val/mae", "val/rmse"} <= ended["metrics"].keys()
    assert "val/r2" not in ended["metrics"]


def test_09_one_class_is_refused_before_the_training(typist: Typist) -> None:
    made.table(typist.folder, "a,y\n" + "1,yes\n" * 40)
    ended = typist.run()
    assert ended["code"] != 0
    assert "the target y has one class" in ended["said"] + ended.get("message", "")


def test_10_validation_that_is_missing_is_told_before_the_training(typist: Typist) -> None:
    goal = {"metric": "val/accuracy", "mode": "max"}
    made.job(typist.folder, {"name": "wine", "params": {"validation": 0}}, objective=goal)
    ended = typist.run()
    assert ended["code"] == 2
    assert "data.params.validation is 0" in ended["said"]


@pytest.mark.parametrize("seen", [made.in_16_bits, made.in_alpha], ids=["11-deep", "13-icons"])
def test_pictures_are_learnt_as_a_person_sees_them(seen: object, typist: Typist) -> None:
    made.pictures(typist.folder, seen)  # type: ignore[arg-type]
    assert typist.run()["metrics"]["val/accuracy"] == 1


def test_14_a_picture_of_too_many_pixels_is_named(typist: Typist) -> None:
    made.pictures(typist.folder)
    Image.new("1", (20_000, 20_000)).save(typist.folder / "pics" / "circle" / "99.png")
    ended = typist.run()
    assert ended["code"] != 0
    assert "pics/circle/99.png" in ended["said"] + ended.get("message", "")


def test_15_and_17_hidden_files_and_names_that_are_no_text(typist: Typist) -> None:
    made.pictures(typist.folder)
    circles = typist.folder / "pics" / "circle"
    (circles / "._00.png").write_bytes(b"\0\5\x16\7")
    (circles / "01.png").rename(circles / b"caf\xe9.png".decode(errors="surrogateescape"))
    assert typist.run("-s", "train.epochs=2")["state"] == "SUCCEEDED"


def test_18_text_labels(typist: Typist) -> None:
    made.arrays(typist.folder, x=np.arange(40.0), y=np.array(["cat", "dog"] * 20))
    assert typist.run()["state"] == "SUCCEEDED"


@pytest.mark.parametrize(("source", "beside"), [(made.NET, ["run_12:30:05.log"]), (made.UNUSED, [])], ids=["19", "22"])
def test_own_code_is_the_same_on_one_and_two_workers(source: str, beside: list[str], typist: Typist) -> None:
    made.code(typist.folder, source, beside)
    ended = [typist.run("-s", f"resources.workers={workers}") for workers in (1, 2)]
    assert [one["state"] for one in ended] == ["SUCCEEDED", "SUCCEEDED"]
    first, second = (one["metrics"] for one in ended)
    assert first["train/loss"] == pytest.approx(second["train/loss"], rel=1e-5)


def test_27_a_password_in_the_tracking_uri_is_nowhere(typist: Typist) -> None:
    made.job(typist.folder, {"name": "wine"}, experiment="team/churn v2")
    ended = typist.run(MLFLOW_TRACKING_URI="http://mluser:s3cretPW@127.0.0.1:9/")
    assert ended["state"] == "SUCCEEDED"
    assert "s3cretPW" not in repr(ended)
    assert typist.left("s3cretPW") == []


@pytest.mark.parametrize("home", ["/proc/x", "/etc/passwd"])
def test_29_a_home_that_cannot_be_written(home: str, typist: Typist) -> None:
    made.job(typist.folder, {"name": "wine"})
    for words in (["run", "job.yaml"], ["up"], ["ui"]):
        done = typist.epochal(*words, EPOCHAL_HOME=home)
        assert (done.returncode, done.stdout) == (5, "")
        assert done.stderr.endswith("hint: set EPOCHAL_HOME to a folder that you can write\n")


def test_in_an_odd_place(typist: Typist, tmp_path: Path) -> None:
    """A western Windows' export under a name of its own, in a folder and a home of such names."""
    place = typist.folder / "a b#c%20d"
    place.mkdir()
    rows = made.two_numbers("größe;b;y", line="{a};{b};{y}").replace(".", ",")
    made.table(place, rows.encode("cp1252"), name="100% 'best' №1.csv", encoding="cp1252")
    ended = Typist(place, tmp_path / "home é #2").run()
    assert ended["state"] == "SUCCEEDED"
    assert ended["metrics"]["val/accuracy"] > 0.6
