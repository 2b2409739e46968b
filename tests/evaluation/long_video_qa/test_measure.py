import re

import pytest
import torch

from vmm.evaluation.long_video_qa.measure import CONTROLS, measure, split_scores, verdict
from vmm.evaluation.long_video_qa.scoring import VideoScores


def test_scores_are_dealt_to_questions_and_mixed_as_published(toys):
    questions = [toys.question(0, 0, video=0, options=["a", "b"]),
                 toys.question(1, 1, video=1, options=["c", "d"]),
                 toys.question(2, 2, video=0, options=["x", "y", "z"])]  # fmt: skip
    similarity, match = [0.1, 0.2, 0.3, 0.4, 0.5], [2.0, -1.0, 0.0, 1.0, 3.0]
    view = {"similarity": similarity, "match": match}
    first = VideoScores(
        None, [1.0, 2, 3, 4, 5], {"video": view}, [[float(i)] for i in range(5)], [0.0], 9.0
    )
    second = VideoScores("missing", [6.0, 7], {}, [], [], None)
    one, two, three = split_scores(questions, [first, second], temperature=0.05)
    assert (one.blind, two.blind, three.blind) == ([1, 2], [6, 7], [3, 4, 5])
    assert three.timeline == [[2.0], [3.0], [4.0]] and two.views == {}
    assert one.views["video"]["matching"] == [2.0, -1.0]
    probability = torch.tensor([0.0, 1, 3]).sigmoid()
    softmax = torch.tensor([0.3, 0.4, 0.5]).div(0.05).softmax(0)
    expected = 0.7 * probability + 0.3 * softmax
    assert three.views["video"]["mixture"] == pytest.approx(expected.tolist(), abs=1e-6)
    assert three.views["video"]["similarity"] == pytest.approx([0.3, 0.4, 0.5])


def test_accuracies_and_controls(toys):
    questions, scores = toys.twelve(9)
    numbers = measure(questions, scores, [4.0] * 6)
    assert numbers["headline"] == "similarity"
    accuracy = numbers["accuracy"]["similarity"]
    assert accuracy["accuracy"] == 75
    # Four videos with both right, one with one, one with none: differences 50 (4 times), -50, -150.
    squares = 4 * 50**2 + 50**2 + 150**2
    assert accuracy["error"] == pytest.approx((6 / 5 * squares) ** 0.5 / 12)
    assert numbers["controls"].keys() == CONTROLS.keys()
    for name in ("shuffled", "blank", "blind", "chance", "majority"):
        assert numbers["controls"][name]["accuracy"] == 25, name
    lead = numbers["controls"]["chance"]["lead"]
    assert lead["accuracy"] == 50 and lead["error"] == pytest.approx(accuracy["error"])
    assert numbers["controls"]["longest"]["accuracy"] == pytest.approx(100 * 3 / 12 / 2 * 2)


def test_longest_and_shortest_options_share_ties(toys):
    options = ["aa", "bbb", "ccc", "d"]
    questions = [toys.question(0, 1, options=options), toys.question(1, 3, options=options)]
    scores = [toys.scores([1.0, 0, 0, 0]), toys.scores([0.0, 0, 0, 1])]
    controls = measure(questions, scores, [4.0] * 2)["controls"]
    assert controls["longest"]["accuracy"] == 25 and controls["shortest"]["accuracy"] == 50


def test_questions_with_fewer_options_and_equal_scores(toys):
    questions = [
        toys.question(0, 1, options=["a", "b"]),
        toys.question(1, 4, options=list("abcde")),
    ]
    scores = [toys.scores([0.5, 0.5]), toys.scores([0.1, 0.1, 0.1, 0.1, 0.9])]
    numbers = measure(questions, scores, [4.0] * 2)
    assert numbers["accuracy"]["similarity"]["accuracy"] == 75
    assert numbers["controls"]["chance"]["accuracy"] == 35


def test_unreadable_videos_are_misses_for_the_model_only(toys):
    questions, scores = toys.twelve(12, blind=[1.0, 0, 0, 0])
    scores[0] = toys.scores(None, blind=[1.0, 0, 0, 0])
    numbers = measure(questions, scores, [4.0] * 6)
    assert numbers["accuracy"]["similarity"]["accuracy"] == pytest.approx(100 * 11 / 12)
    assert numbers["controls"]["blank"]["accuracy"] == pytest.approx(100 * 11 / 12 / 4)
    assert numbers["controls"]["blind"]["accuracy"] == 25


def test_a_blank_videos_opinion_can_be_subtracted(toys):
    questions = [toys.question(i, 2) for i in range(4)]
    scores = [toys.scores([0.9, 0.1, 0.8, 0], blank=[0.9, 0.1, 0.2, 0]) for _ in range(4)]
    numbers = measure(questions, scores, [4.0] * 4)
    assert numbers["accuracy"]["similarity"]["accuracy"] == 0
    assert numbers["minus_blank"]["similarity"]["accuracy"] == 100


def test_classes_are_measured_apart(toys):
    questions, scores = toys.twelve(9)
    questions = [q._replace(duration=None if i < 6 else "long") for i, q in enumerate(questions)]
    numbers = measure(questions, scores, [30.0, 90.0, 90.0, 30.0, 30.0, 30.0])
    types = numbers["by_type"]
    assert {name: row["questions"] for name, row in types.items()} == {"a": 6, "b": 6}
    assert types["a"]["accuracy"] == pytest.approx(100 * 5 / 6)
    assert types["b"]["accuracy"] == pytest.approx(100 * 4 / 6)
    assert numbers["mean_over_types"] == pytest.approx(75)
    lengths = {name: row["questions"] for name, row in numbers["by_duration"].items()}
    assert lengths == {"under 1 minute": 2, "1 to 3 minutes": 4, "long": 6}
    assert types["a"]["best_control"] == "shortest"  # half of the answers are "red"
    assert types["a"]["lead"]["accuracy"] == pytest.approx(100 / 3)


@pytest.mark.parametrize(
    ("right", "shuffled", "said"),
    [
        (90.0, 40.0, r"^The video helps: mixture answers 90\.0 %, .*above the best control"),
        (31.0, 31.0, r"^No sign that the video helps: .* 0\.0 points .*above the same frames"),
        (2.0, 2.0, r"^The video harms: .*28\.0 points .*below the best control"),
    ],
)
def test_the_verdict(right, shuffled, said):
    generator = torch.Generator().manual_seed(0)
    count = 400

    def answers(percent):
        return 100.0 * (torch.rand(count, generator=generator, dtype=torch.float64) * 100 < percent)

    model = answers(right)
    model += right - model.mean()
    controls = dict.fromkeys(CONTROLS, torch.full((count,), 25.0, dtype=torch.float64))
    controls["blind"] = torch.full((count,), 30.0, dtype=torch.float64)
    controls["shuffled"] = model.clone() if shuffled == right else answers(shuffled)
    sentence = verdict("mixture", model, controls, torch.arange(count) // 4, [True] * count)
    assert re.search(said, sentence), sentence
    assert "blind: question and option alone, 30.0 %" in sentence
    assert "could be read" not in sentence


def test_videos_that_cannot_be_read_do_no_harm(toys):
    questions, scores = toys.twelve(9)
    missing = [toys.question(12 + i, i % 4, video=6 + i // 2) for i in range(88)]
    everything = measure(questions, scores, [4.0] * 50)["verdict"]
    lost = [toys.scores(None, blind=[0.0, 1, 0, 0])] * len(missing)
    said = measure([*questions, *missing], [*scores, *lost], [4.0] * 50)["verdict"]
    assert said == everything.replace("75.0 %", "75.0 % where the video could be read")


def test_one_video_gives_no_error(toys):
    questions = [toys.question(i, i, video=0) for i in range(4)]
    scores = [toys.scores([float(i == j) for j in range(4)]) for i in range(4)]
    numbers = measure(questions, scores, [4.0])
    assert numbers["accuracy"]["similarity"] == {"accuracy": 100.0, "error": None}
    assert numbers["verdict"].startswith("No sign that the video helps")
