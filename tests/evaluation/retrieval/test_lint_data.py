import pytest
import torch

from tests.evaluation.retrieval.subjects import MSRVTT, N, changed, clips_of, only, scores_of
from vmm.evaluation.common.features import Clip
from vmm.evaluation.retrieval.lint import lint
from vmm.evaluation.retrieval.protocols import PROTOCOLS
from vmm.evaluation.retrieval.subject import Subject
from vmm.metrics import text_to_video_ranks


def test_a_full_test_set_that_is_called_1ka(clean):
    clips = clips_of([f"video{7010 + i}" for i in range(2990)])
    subject = changed(clean, clips=clips, similarity=scores_of(clips))
    finding = only(subject, "other-split")
    assert "2,990 videos are full test; MSRVTT-1kA has 1000" in finding.message
    # Brute force: R@1 on many random galleries of the published size.
    now, expected = (float(x) for x in (finding.effect.split()[1], finding.effect.split()[4]))
    assert now == pytest.approx(subject.recall(), abs=0.05)
    ranks = text_to_video_ranks(subject.scores, subject.relevant)
    generator = torch.Generator().manual_seed(0)
    drawn = []
    for better in ranks.better[:200].tolist():
        for _ in range(20):
            others = torch.randperm(2989, generator=generator)[:999]
            drawn.append(bool((others >= better).all()))
    assert 100 * sum(drawn) / len(drawn) == pytest.approx(expected, abs=8)
    assert expected > now + 5


def test_the_full_test_set_has_twenty_captions_each():
    clips = clips_of([f"video{7010 + i}" for i in range(2990)], 20)
    codes = {finding.code for finding in lint(Subject(clips, MSRVTT))}
    assert codes == {"other-split", "caption-count"}


def test_fewer_videos_than_listed(clean):
    subject = changed(clean, clips=clean.clips[:879], similarity=clean.similarity[:879, :879])
    finding = only(subject, "fewer-videos")
    assert "879 videos are listed, MSRVTT-1kA has 1000" in finding.message
    assert "chance is 0.11 instead of 0.10" in finding.effect


def test_training_videos_by_their_ids(clean):
    clips = [clip._replace(key=f"video{i}") if i < 10 else clip
             for i, clip in enumerate(clean.clips)]  # fmt: skip
    similarity = clean.similarity.clone()
    similarity[:10, :10] = 9 * torch.eye(10)  # learnt by heart
    finding = only(changed(clean, clips=clips, similarity=similarity), "training-videos")
    assert "10 of 1000 videos are in the training set, e.g. 'video0'" in finding.message
    assert "100.0 among those seen" in finding.effect


def test_training_videos_by_a_list(clean):
    subject = changed(clean, training=frozenset({"video7012", "video1", "video7016"}))
    assert "2 of 1000" in only(subject, "training-videos").message
    assert "the model has seen the answers" in lint(changed(subject, similarity=None))[0].effect


def test_msvd_joined_to_paragraphs():
    words = " ".join(["a man plays a guitar"] * 40)
    clips = [Clip(f"v{i}", [f"{i} {words}"], None, None) for i in range(670)]
    finding = only(Subject(clips, PROTOCOLS["msvd"]), "joined-captions")
    assert "one text of about 201 words" in finding.message
    assert "MSVD has 2 to 100 per video, each a query" in finding.message


def test_didemo_that_is_not_joined():
    clips = clips_of([f"1234@N01_{i}_x" for i in range(1004)], 4)
    assert (
        "4.0 captions" in only(Subject(clips, PROTOCOLS["didemo"]), "captions-not-joined").message
    )


def test_didemo_with_a_video_under_two_extensions():
    ids = [f"1234@N01_{i}_x.mov" for i in range(1003)] + ["1234@N01_7_x.mp4"]
    clips = clips_of(ids)
    similarity = 0.3 * torch.eye(1004)
    similarity[7, 1003] = similarity[1003, 7] = 0.4  # the same pixels, scored a little higher
    finding = only(Subject(clips, PROTOCOLS["didemo"], similarity=similarity), "same-video-twice")
    assert "1234@N01_7_x.mov and 1234@N01_7_x.mp4" in finding.message
    assert finding.effect == "R@1 99.8; 100.0 if either name counts"


def test_the_same_id_twice(clean):
    clips = [*clean.clips[:-1], clean.clips[0]]
    codes = [finding.code for finding in lint(changed(clean, clips=clips, similarity=None))]
    assert codes[0] == "repeated-id"


def test_ids_of_another_data_set(clean):
    clips = [*clean.clips[:-1], clean.clips[-1]._replace(key="v_abcdefghijk")]
    finding = only(changed(clean, clips=clips), "foreign-ids")
    assert "1 of 1000 ids are not of MSRVTT-1kA, e.g. 'v_abcdefghijk'" in finding.message


def test_duplicate_captions(clean):
    same = [["A man sings."], ["a man sings"], ["A man  sings!"]]
    clips = [clip._replace(captions=same[i]) if i < 3 else clip
             for i, clip in enumerate(clean.clips)]  # fmt: skip
    similarity = 0.1 * torch.eye(N)
    similarity[:3, 0] = torch.tensor([0.9, 0.8, 0.7])  # all three find the first
    finding = only(changed(clean, clips=clips, similarity=similarity), "duplicate-captions")
    assert "3 of 1000 captions are said of several videos, e.g. 'a man sings'" in finding.message
    assert finding.effect == "R@1 99.8; 100.0 if any of their videos counts"


def test_unreadable_videos(clean):
    clips = [clip._replace(problem="missing") if i % 10 == 0 else clip
             for i, clip in enumerate(clean.clips)]  # fmt: skip
    similarity = torch.eye(N) + 1e-3 * torch.rand(N, N)
    similarity[:, ::10] = -torch.inf
    finding = only(changed(clean, clips=clips, similarity=similarity), "unreadable-videos")
    assert "100 of 1000 videos could not be used (100 missing)" in finding.message
    assert finding.effect == "R@1 90.0; 100.0 if they are left out"


def test_shards_that_are_not_whole(clean):
    finding = only(changed(clean, lost={"damaged shards": 1, "no caption": 2}), "incomplete-shards")
    assert finding.message == "left out: 1 damaged shards, 2 no caption"
    assert "smaller" in finding.effect


@pytest.mark.parametrize("number", [0, 1])
def test_no_candidates(number):
    finding = only(Subject(clips_of(["a"] * number)), "few-candidates")
    assert f"the gallery has {number} clip" in finding.message
