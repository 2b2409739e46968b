import pytest
import torch

from vmm.data.shards import EvaluationSample
from vmm.evaluation.common.journal import Journal
from vmm.evaluation.open_qa.scoring import ask
from vmm.models.answer import Ranking
from vmm.models.text_interface import VisionKV


class Lamp(torch.nn.Module):
    """Answers 1 where it sees light, 0 in the dark."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.text_encoder = self

    def tokenize(self, texts, device):
        return texts

    def see(self, video):
        return VisionKV((video.abs().mean().view(1, 1),), ())

    def read(self, tokens, vision):
        return vision.keys[0][:, 0].expand(len(tokens))

    def rank(self, light, answers, k):
        return [Ranking((x > 0).long().view(1), torch.zeros(1), 1) for x in light]


def test_every_question_is_also_asked_about_a_blank_video(asked, tmp_path):
    films = [EvaluationSample(f"{n}", n, torch.ones(2, 3, 4, 4), [], {}, None) for n in range(3)]
    journal = Journal(tmp_path, {})
    replies, problems = ask(Lamp(), None, films, asked.questions, journal, 1, 0)
    assert [(r.answers, r.blank) for r in replies] == [([1], 0)] * 5 and not problems


def test_without_a_readable_video_nothing_is_measured(asked, tmp_path):
    films = [EvaluationSample(f"{n}", n, None, [], {}, "truncated") for n in range(3)]
    with pytest.raises(ValueError, match=r"not one of 3 videos could be read \(truncated\)"):
        ask(Lamp(), None, films, asked.questions, Journal(tmp_path, {}), 1, 0)
