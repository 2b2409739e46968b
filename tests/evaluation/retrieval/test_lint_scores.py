import pytest
import torch

from tests.evaluation.retrieval.subjects import N, changed, clips_of, only, scores_of
from vmm.evaluation.retrieval.lint import lint
from vmm.evaluation.retrieval.lint_scores import _tie_effect
from vmm.evaluation.retrieval.subject import Subject
from vmm.metrics import hit_probability, text_to_video_ranks


def test_the_direction_by_the_shape():
    clips = clips_of([f"v{i}" for i in range(30)], 4)
    right = scores_of(clips)
    assert "direction-swapped" not in {f.code for f in lint(Subject(clips, similarity=right))}
    finding = only(Subject(clips, similarity=right.T), "direction-swapped")
    assert "videos by texts" in finding.message
    value = (
        100
        * hit_probability(
            text_to_video_ranks(right, torch.arange(30).repeat_interleave(4)), 1
        ).mean()
    )
    assert f"text-to-video R@1 is {value:.1f}" in finding.effect


def test_the_direction_by_what_was_reported(clean):
    similarity = clean.similarity + 0.2 * torch.arange(N) / N  # so that the directions differ
    subject = changed(clean, similarity=similarity)
    t2v = subject.recall()
    v2t = changed(subject, similarity=similarity.T).recall()
    assert abs(t2v - v2t) > 1
    assert lint(changed(subject, reported={"t2v": t2v, "v2t": v2t})) == []
    swapped = changed(subject, reported={"t2v": v2t, "v2t": t2v})
    assert "txt_r1 is video-to-text" in only(swapped, "direction-swapped").message


def test_a_collapsed_model(clean):
    finding = only(changed(clean, similarity=torch.full((N, N), 0.25)), "constant-scores")
    each = "R@1 is anything from 0.0 to 100.0, as ties are broken; 0.1 expected"
    assert finding.effect == f"text-to-video {each}; video-to-text {each}"


def test_ties_behind_better_candidates_change_nothing(clean):
    similarity = torch.eye(N) + 1e-3 * torch.rand(N, N)
    similarity[0, :3] = torch.tensor([2.0, 2.0, 3.0])  # the right one is the first
    finding = only(changed(clean, similarity=similarity), "tied-scores")
    assert finding.effect == f"text-to-video R@1 is {100 * (N - 1) / N:.1f} however ties are broken"


def test_ties_of_captions_are_said_of_that_direction(clean):
    similarity = torch.eye(N) + 1e-3 * torch.rand(N, N)
    similarity[1] = similarity[0]  # equal captions of two videos
    similarity[:2, :2] = torch.tensor([2.0, 1.5])
    finding = only(changed(clean, similarity=similarity), "tied-scores")
    low, high, fair = (100 * (N - n) / N for n in (2, 0, 1))
    assert finding.effect == (
        f"video-to-text R@1 is anything from {low:.1f} to {high:.1f}, as ties are broken; "
        f"{fair:.1f} expected"
    )


def test_equal_scores_of_two_right_ones_are_no_ties():
    scores, relevant = torch.eye(4), torch.eye(4, dtype=torch.bool)
    scores[:2, :2], relevant[:2, :2] = 5, True  # both captions are about both videos
    scores[2, 3] = 1
    ties = "R@1 is anything from 75.0 to 100.0, as ties are broken; 87.5 expected"
    assert _tie_effect(scores, relevant) == f"text-to-video {ties}; video-to-text {ties}"
    assert _tie_effect(torch.eye(4), relevant).startswith("no query")


def test_tied_scores(clean):
    similarity = torch.eye(N) + 1e-3 * torch.rand(N, N)
    similarity[0, :4] = 5
    finding = only(changed(clean, similarity=similarity), "tied-scores")
    assert "1 query" in finding.message
    assert "from 99.9 to 100.0" in finding.effect


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_even_if_it_was_widened_later(clean, kind, stored):
    rounded = clean.similarity.to(kind)
    subject = changed(clean, similarity=rounded.float() if stored == torch.float32 else rounded)
    findings = {finding.code: finding for finding in lint(subject)}
    assert findings.keys() - {"tied-scores"} == {"half-precision"}
    assert str(kind).removeprefix("torch.") in findings["half-precision"].message
    if kind == torch.bfloat16:
        low, high = (float(findings["tied-scores"].effect.split()[i].strip(",")) for i in (5, 7))
        assert low < clean.recall() < high
