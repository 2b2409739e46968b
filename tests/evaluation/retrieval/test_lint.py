"""Nothing is found where nothing is off; mistakes are planted in test_lint_data and _scores."""

import pytest

from tests.evaluation.retrieval.subjects import changed, clips_of, scores_of
from vmm.evaluation.retrieval.lint import CHECKS, lint, recognise
from vmm.evaluation.retrieval.protocols import PROTOCOLS
from vmm.evaluation.retrieval.subject import Subject


def test_nothing_is_found_on_a_clean_test_set(clean):
    assert lint(clean) == []
    assert lint(changed(clean, similarity=None)) == []


@pytest.mark.parametrize("name", PROTOCOLS)
def test_nothing_is_found_on_any_clean_protocol(name):
    protocol = PROTOCOLS[name]
    number, each = min(protocol.videos or 7, 40), (protocol.captions or (1, 1))[0]
    ids = {"didemo": "12345@N01_{}_ab.mp4", "activitynet": "v_{:011d}"}.get(name, "video{}")
    protocol = protocol._replace(videos=protocol.videos and number)
    clips = clips_of([ids.format(7010 + i) for i in range(number)], each)
    assert lint(Subject(clips, protocol, similarity=scores_of(clips))) == []


def test_all_checks_were_tried():
    assert len(CHECKS) == 12  # a new check needs a planted mistake in test_lint_data or _scores


def test_test_sets_are_recognised():
    assert recognise(clips_of([f"video{7010 + i}.mp4" for i in range(2990)])) == "msrvtt-full"
    assert recognise(clips_of([f"s/video{7010 + i}" for i in range(1000)])) == "msrvtt-1ka"
    assert recognise(clips_of([f"clip{i}" for i in range(1000)])) is None
    assert recognise([]) is None


# ---------------------------------------------------------------- the command
