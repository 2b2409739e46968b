import numpy as np
import pytest
import torch

from vmm.evaluation.grounding.measure import Found, answers_of, measure, metrics_of, verdict
from vmm.evaluation.grounding.proposals import Prior
from vmm.evaluation.grounding.scoring import VideoCurves


def found(*windows, clips=(0.0, 0.0, 0.0)):
    rows = [[start, end, -float(n)] for n, (start, end) in enumerate(windows)]
    return Found(np.array(rows).reshape(-1, 3), np.array(clips))


def test_numbers_of_one_sentence_by_hand(toys):
    query = toys.query(moments=[(1, 3)], clips=[0, 2], marks=[[3, 2], [4, 0]])
    values = metrics_of(query, found((1, 5), (1, 3), clips=(0.1, 0.9, 0.5)), query.true)
    assert values["mIoU"] == 50 and values["mAP@0.75"] == 50
    assert [values[f"R1@{m}"] for m in (0.3, 0.5, 0.7)] == [100, 100, 0]
    assert values["R5@0.7"] == 100 and values["mAP@0.5"] == 100
    assert values["mAP"] == pytest.approx((100 + 9 * 50) / 10)
    assert values["HIT@1 VeryGood"] == 0 and values["HL-mAP VeryGood"] == pytest.approx(25)
    missed = metrics_of(query, None, query.true)
    assert missed.keys() == values.keys() and set(missed.values()) == {0}
    assert "HIT@1 Fair" not in metrics_of(toys.query(), found((1, 3)), query.true)


def test_every_sentence_gets_the_answers_of_its_place():
    edges = [float(second) for second in range(9)]
    peak = lambda place: [float(i in (place, place + 1)) for i in range(8)]  # noqa: E731
    video = VideoCurves(None, edges, [peak(1), peak(5)], [peak(0), peak(3)], [], [])
    broken = VideoCurves("truncated", [], [], [], [], [])
    from_video = [_query(0), _query(1), _query(0)]
    answers = answers_of(from_video, [video, broken], Prior([(8.0, [0, 4])]))
    assert answers[1] == {}
    tops = [answers[i]["curve"].windows[0, :2].tolist() for i in (0, 2)]
    assert tops == [[1, 3], [5, 7]]
    assert answers[2]["shuffled"].windows[0, :2].tolist() == [3, 5]
    assert answers[0]["centre"].clips.tolist() == [0, 1, 1, 0]
    assert list(answers[0]) == ["curve", "shuffled", "centre", "whole", "prior"]
    assert "prior" not in answers_of(from_video[:1], [video], None)[0]


def _query(video):
    from tests.evaluation.grounding.conftest import Toys

    return Toys().query(video=video, duration=8.0)


def test_unreadable_videos_are_misses_and_lengths_are_apart(toys):
    queries = [
        toys.query("a", 0, [(0, 6)]),
        toys.query("b", 1, [(0, 20), (30, 36)]),
        toys.query("c", 2, [(0, 6)]),
    ]
    right = {
        name: found((0, 6), (0, 20)) for name in ("head", "curve", "shuffled", "centre", "whole")
    }
    numbers = measure(queries, [right, right, {}], "R1@0.5")
    assert numbers["headline"] == "head"
    assert numbers["metrics"]["curve"]["R1@0.5"]["value"] == pytest.approx(100 / 3)
    assert {k: v["queries"] for k, v in numbers["by_length"].items()} == {"short": 3, "middle": 1}
    assert numbers["by_length"]["middle"]["methods"]["head"]["R1@0.5"]["value"] == 0
    assert numbers["by_length"]["middle"]["methods"]["head"]["mAP"]["value"] == 50
    assert numbers["gain"]["value"] == 0 and set(numbers["lead"]) == {"shuffled", "centre", "whole"}
    assert len(numbers["recall"]["methods"]["head"]) == len(numbers["recall"]["iou"])
    assert numbers["recall"]["methods"]["head"][0] == pytest.approx(200 / 3, abs=1e-3)


def test_the_verdict_says_what_helps():
    clusters, read = torch.arange(40), [True] * 40
    none = torch.zeros(40).double()
    some = 100.0 * (torch.arange(40) % 2).double()
    controls = {"shuffled": none, "centre": none, "whole": none + 1}
    said = verdict("curve", "R1@0.5", {"curve": some, **controls}, clusters, read)
    assert said.startswith("The video helps: R1@0.5 of the relevance curve is 50.0 %, 49.0 points")
    assert "(whole video, the longest window, 1.0 %)" in said and "head" not in said
    said = verdict("curve", "mAP", {"curve": none, **controls, "whole": some}, clusters, read)
    assert said.startswith("Looking at the video is worse")
    said = verdict("head", "mAP", {"head": none + 1, "curve": none, **controls}, clusters, read)
    assert said.startswith("No sign") and said.endswith("above the model's own curve.")
    lost = {name: torch.cat([values, 0 * values]) for name, values in controls.items()}
    lost["whole"] = torch.cat([none, some + 50])
    everything = {"curve": torch.cat([some, none]), **lost}
    said = verdict("curve", "mAP", everything, torch.arange(80), [*read, *[False] * 40])
    assert said.startswith("The video helps: mAP of the relevance curve is 50.0 % where the video ")
