import torch

from vmm.evaluation.open_qa.lint import lint_questions
from vmm.evaluation.open_qa.measure import judge, measure
from vmm.evaluation.open_qa.scoring import Reply
from vmm.models.answer import AnswerList
from vmm.types import TextTokens


def answer_list(texts, ids):
    ids = torch.tensor(ids)
    return AnswerList(texts, TextTokens(ids, torch.ones_like(ids)))


def test_findings(asked):
    judged = judge(asked.questions, asked.replies, asked.answers)
    numbers = measure(asked.questions, judged)
    different = answer_list(asked.answers, [[1], [2], [3], [4]])
    found = {f.code: f for f in lint_questions("msvd-qa", asked.questions, different, numbers)}
    assert set(found) == {"answer-list", "size", "no-help"}
    assert "above 80.0 %" in found["answer-list"].effect
    alike = answer_list([*asked.answers, "boat"], [[1], [2], [3], [4], [4]])
    found = {f.code for f in lint_questions(None, asked.questions, alike, numbers)}
    assert found == {"equal-answers", "no-help"}
    right = [Reply([i], [0.0], 3) for i in (0, 1, 0, 2)]
    better = measure(asked.questions[:4], judge(asked.questions[:4], right, asked.answers))
    better["gain"]["interval"] = (1.0, 2.0)
    assert lint_questions(None, asked.questions[:4], different, better) == []
