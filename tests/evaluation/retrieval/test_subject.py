import pytest
import torch

from vmm.evaluation.common.features import Clip
from vmm.evaluation.retrieval.protocols import PROTOCOLS
from vmm.evaluation.retrieval.subject import Subject

CLIPS = [Clip("a", ["one", "two"], None, None), Clip("b", ["three"], None, None),
         Clip("c", ["one"], None, None)]  # fmt: skip
# The captions of a, a, b and c: the first finds b, the others their own.
SCORES = torch.tensor([[0.2, 0.9, 0.1], [0.9, 0.1, 0.2], [0.1, 0.9, 0.2], [0.1, 0.2, 0.9]])


def test_captions_belong_to_their_clips():
    own = torch.tensor([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]).bool()
    assert torch.equal(Subject(CLIPS).relevant, own)
    shared = Subject(CLIPS, PROTOCOLS["ssv2-template"]).relevant
    assert torch.equal(shared, torch.tensor([[1, 0, 1], [1, 0, 0], [0, 1, 0]]).bool())


@pytest.mark.parametrize("similarity", [SCORES, SCORES.T, SCORES.double()])
def test_scores_are_texts_by_videos_in_float32_whichever_way_they_came(similarity):
    scores = Subject(CLIPS, similarity=similarity).scores
    assert scores.dtype == torch.float32 and torch.equal(scores, SCORES)


def test_scores_that_fit_neither_way_are_none():
    for similarity in (None, torch.eye(3), torch.zeros(4, 4)):
        subject = Subject(CLIPS, similarity=similarity)
        assert subject.scores is None and subject.recall() is None


def test_recall_of_a_part_or_with_other_right_answers():
    subject = Subject(CLIPS, similarity=SCORES)
    assert subject.recall() == 75
    without_b = torch.tensor([True, False, True])
    assert subject.recall(without_b) == 100  # b is not there to be found
    assert subject.recall(~without_b) == 100
    assert subject.recall(torch.zeros(3, dtype=torch.bool)) is None
    either = subject.relevant | torch.tensor([[0, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]).bool()
    assert subject.recall(relevant=either) == 100
