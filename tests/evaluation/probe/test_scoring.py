import pytest
import torch

from vmm.evaluation.common.features import Clip
from vmm.evaluation.probe.scoring import Encoded, Lesson, read_all, standardised


class Store:
    """Features of four clips, of which the third could not be read."""

    def __init__(self, vectors):
        self.vectors = vectors

    def finished(self):
        problems = (None, None, "empty", None)
        return {i: Clip(f"clip {i}", [], None, problem) for i, problem in enumerate(problems)}

    def read(self, name):
        return self.vectors if name == "projected" else self.vectors.repeat(1, 3, 1)


def test_clips_that_cannot_be_read_or_have_no_label_are_left_out():
    vectors = torch.arange(16.0).view(4, 2, 2)
    found = Encoded.of(Store(vectors), torch.tensor([0, -1, 1, 1]), "training clips", True)
    assert found.rows.tolist() == [0, 3]
    assert found.vectors.tolist() == [[1, 2], [13, 14]]  # the mean of a clip's vectors
    assert found.tokens.shape == (4, 6, 2)


def test_features_that_are_no_numbers_are_refused():
    vectors = torch.ones(4, 1, 2)
    vectors[3, 0, 1] = torch.nan
    with pytest.raises(ValueError, match=r"vectors of 1 of 2 test clips hold NaN .*'clip 3'"):
        Encoded.of(Store(vectors), torch.tensor([0, -1, 1, 1]), "test clips", False)


def test_features_get_the_scale_of_the_training_clips():
    train = torch.randn(50, 3) * torch.tensor([1.0, 1e-3, 0.0]) + torch.tensor([5.0, 0.0, 7.0])
    scaled, test = standardised(train, train[:2] + 1)
    assert scaled.mean(0).abs().max() < 1e-6
    torch.testing.assert_close(scaled.std(0, correction=0), torch.tensor([1.0, 1, 0]).double())
    shifted = scaled[:2, :2] + 1 / train[:, :2].double().std(0, correction=0)
    torch.testing.assert_close(test[:, :2], shifted)
    assert test[:, 2].tolist() == [0, 0]  # what never varied says nothing


def lesson(tokens):
    torch.manual_seed(0)
    labels = torch.arange(40) % 2
    vectors = torch.randn(40, 4) + 4 * labels[:, None]
    clips = [Clip(str(i), [], None, None) for i in range(40)]
    seen = Encoded(clips, torch.arange(40), vectors, tokens)
    return Lesson(seen, seen, labels, torch.arange(40))


def test_all_probes_read_the_features_of_all_clips():
    tokens = torch.randn(40, 3, 4) * 100 + 1000  # as large as may be: they are standardised
    tokens[:, 1] += 300 * (torch.arange(40) % 2)[:, None]
    asked = lesson(tokens)
    found = read_all(asked, ["linear", "knn", "attentive"], 0, "trained")
    for reading in found.values():
        right = torch.from_numpy(reading.scores).argmax(1) == asked.labels
        assert right.double().mean() > 0.9 and set(reading.chosen) <= {"C", "k", "epochs"}


def test_without_tokens_there_is_no_attentive_probe():
    assert [*read_all(lesson(None), ["knn", "attentive"], 0, "trained")] == ["knn"]


def test_broken_tokens_are_refused():
    tokens = torch.ones(40, 3, 4)
    tokens[7, 1, 2] = torch.inf
    with pytest.raises(ValueError, match="1 of 40 training clips hold NaN or infinity"):
        read_all(lesson(tokens), ["attentive"], 0, "trained")
