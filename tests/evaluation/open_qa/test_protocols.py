from vmm.data.annotations.registry import DATASETS
from vmm.evaluation.open_qa.protocols import OPEN_SETS, PUBLISHED


def test_every_set_asks_questions_that_are_read():
    assert all(DATASETS[name].content == "questions" for name in OPEN_SETS)
    assert PUBLISHED.keys() <= set(OPEN_SETS.values())
