import csv
import math
import re

import pytest

from vmm.evaluation.common.curves import Curve, levels, meaning, panels, read_curves, told_apart
from vmm.tasks.loss_terms import LossWeights

ROWS = """epoch,step,train/loss,train/vtc,val/t2v_recall_1,speed/clips_per_s
0,0,2.0,1.5,,
0,10,nan,1.0,,30
0,20,1.0,0.5,42.0,
"""


@pytest.fixture
def curves(tmp_path):
    (tmp_path / "metrics.csv").write_text(ROWS)
    return {curve.name: curve for curve in read_curves(tmp_path / "metrics.csv")}


def test_curves_are_read_by_name(curves, tmp_path):
    assert curves.keys() == {"train/loss", "train/vtc", "val/t2v_recall_1"}
    assert curves["train/loss"] == Curve("train/loss", [0, 20], [2.0, 1.0])  # NaN is left out
    (tmp_path / "metrics.csv").write_text("step,train/loss\nx,1\n")
    with pytest.raises(ValueError, match="holds no number for train/loss"):
        read_curves(tmp_path / "metrics.csv")
    before = csv.field_size_limit(100_000)  # readers of annotations raise it for the whole process
    try:
        for damaged in (b"\xf7\x00", b"step,train/loss\n0," + b"1" * 200_000):
            (tmp_path / "metrics.csv").write_bytes(damaged)
            with pytest.raises(ValueError, match="it is damaged"):
                read_curves(tmp_path / "metrics.csv")
    finally:
        csv.field_size_limit(before)
    with pytest.raises(ValueError, match="give a run directory"):
        read_curves(tmp_path / "gone.csv")


def test_what_was_measured_once_or_never_changed_is_a_number_not_a_curve(curves):
    flat = Curve("train/temperature", [0, 10, 20], [0.07, 0.07, 0.07])
    shown = [*curves.values(), flat]
    assert [panel["name"] for panel in panels(shown)] == ["train/loss", "train/vtc"]
    rows = {row[0]: row[1:3] for row in levels(shown)[1:]}
    assert rows == {"train/temperature": ["0.07", "all"], "val/t2v_recall_1": ["42", "20"]}
    assert levels([curves["train/loss"]]) == []
    twice = Curve("val/loss", [5, 5], [1.0, 2.0])  # of a run that went on from there
    assert panels([twice]) == [] and levels([twice])[1][:2] == ["val/loss", "2"]


def test_what_guessing_costs_is_said_for_several_batches():
    said = re.findall(r"(\d\.\d) for (?:a batch|one) of (\d+)", meaning("train/vtc"))
    assert len(said) == 2
    for loss, candidates in said:
        assert float(loss) == pytest.approx(math.log(int(candidates)), abs=0.05)


def test_a_curve_is_drawn_from_its_highest_to_its_lowest_value():
    (panel,) = panels([Curve("train/loss", [0, 10, 30], [4.0, 2.0, 0.0])])
    assert 'points="52.0,10.0 143.3,78.0 326.0,146.0"' in panel["svg"]
    assert ">step 0<" in panel["svg"] and ">30<" in panel["svg"] and ">4<" in panel["svg"]
    assert panel["last"] == "0"


@pytest.mark.parametrize(
    ("low", "high", "written"),
    [
        (0.0, 1.0, ("0", "1")),
        (4.1583, 4.1601, ("4.158", "4.16")),
        (0.1, 0.1, ("0.1", "0.1")),
        (0.3, 0.1 + 0.2, ("0.29999999999999999", "0.30000000000000004")),
    ],
)
def test_both_ends_of_an_axis_look_different_if_they_are(low, high, written):
    assert told_apart(low, high, 3) == written
    if low != high:
        (panel,) = panels([Curve("train/loss", [0, 1], [low, high])])
        assert all(f">{text}<" in panel["svg"] for text in written)
        left = int(re.search(r'<text x="(\d+)"', panel["svg"])[1])
        assert left >= 7 * max(map(len, written)), "a label is cut off"


def test_long_curves_stay_small_files():
    values = [float(i % 7) for i in range(100_000)]
    (panel,) = panels([Curve("train/loss", list(range(100_000)), values)])
    assert len(panel["svg"]) < 20_000


def test_names_are_no_markup():
    (panel,) = panels([Curve("train/<b>", [0, 1], [1.0, 2.0])])
    assert "<b>" not in panel["svg"]


def test_every_loss_and_every_recall_is_explained():
    for name in vars(LossWeights()):
        assert meaning(f"train/{name}"), name
    assert "captions" in meaning("val/t2v_recall_5") and "first 5" in meaning("val/t2v_recall_5")
    assert meaning("val/v2t_median_rank").startswith("Of the clips")
    assert meaning("train/unheard_of") == ""
