"""Every mistake is planted and found; nothing is found where nothing is off."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from eval.lint import main
from vmm.evaluation.common.features import Clip
from vmm.evaluation.retrieval.lint import CHECKS, lint, recognise
from vmm.evaluation.retrieval.protocols import PROTOCOLS
from vmm.evaluation.retrieval.subject import Subject
from vmm.metrics import hit_probability, text_to_video_ranks

N = 1000
MSRVTT = PROTOCOLS["msrvtt-1ka"]


def clips_of(ids, captions=1):
    return [
        Clip(name, [f"caption {number} {i} of {name}" for i in range(captions)], None, None)
        for number, name in enumerate(ids)
    ]


def scores_of(clips, noise=1.0, seed=0):
    """Cosine-like scores of a fair model: right pairs a little higher."""
    owner = torch.tensor([n for n, clip in enumerate(clips) for _ in clip.captions])
    generator = torch.Generator().manual_seed(seed)
    scores = noise * torch.randn(len(owner), len(clips), generator=generator)
    scores[torch.arange(len(owner)), owner] += 3
    return scores / 20


@pytest.fixture
def clean():
    # As in the real list, the ids lie anywhere in the test part.
    ids = [f"video{7010 + 2 * i}" for i in range(N)]
    clips = clips_of(ids)
    return Subject(clips, MSRVTT, similarity=scores_of(clips))


def changed(subject, **fields):
    return Subject(
        **({name: getattr(subject, name) for name in subject.__dataclass_fields__} | fields)
    )


def only(subject, code):
    findings = lint(subject)
    assert [finding.code for finding in findings] == [code], findings
    return findings[0]


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


def test_a_full_test_set_that_is_called_1ka(clean):
    clips = clips_of([f"video{7010 + i}" for i in range(2990)])
    subject = changed(clean, clips=clips, similarity=scores_of(clips))
    finding = only(subject, "other-split")
    assert "2990 videos are full test; MSRVTT-1kA has 1000" in finding.message
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
    assert finding.effect == "R@1 is anything from 0.0 to 100.0, as ties are broken; 0.1 expected"


def test_tied_scores(clean):
    similarity = torch.eye(N) + 1e-3 * torch.rand(N, N)
    similarity[0, :4] = 5
    finding = only(changed(clean, similarity=similarity), "tied-scores")
    assert "1 queries" in finding.message
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
        low, high = (float(findings["tied-scores"].effect.split()[i].strip(",")) for i in (4, 6))
        assert low < clean.recall() < high


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


def test_all_checks_were_tried():
    assert len(CHECKS) == 12  # a new check needs a planted mistake here


def test_test_sets_are_recognised():
    assert recognise(clips_of([f"video{7010 + i}.mp4" for i in range(2990)])) == "msrvtt-full"
    assert recognise(clips_of([f"s/video{7010 + i}" for i in range(1000)])) == "msrvtt-1ka"
    assert recognise(clips_of([f"clip{i}" for i in range(1000)])) is None
    assert recognise([]) is None


# ---------------------------------------------------------------- the command


@pytest.fixture
def annotations(tmp_path):
    items = [{"video": f"vidéo{i}.mp4", "caption": f"what {i} shows"} for i in range(6)]
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(items, ensure_ascii=False), encoding="utf-8")
    return path


def call(scores, annotations, *options):
    return main([str(scores), "--dataset", "captions", "--annotations", str(annotations), *options])


def test_the_command_scores_a_matrix_and_says_what_is_off(tmp_path, annotations, capsys):
    scores = torch.eye(6) + 0.01 * torch.rand(6, 6)
    np.save(tmp_path / "a.npy", scores.numpy())
    assert call(tmp_path / "a.npy", annotations) == 0
    output = capsys.readouterr().out
    assert "text-to-video  100.0" in output and "nothing is off" in output
    save_file({"s": scores.bfloat16()}, tmp_path / "b.safetensors")
    seen = tmp_path / "train.txt"
    seen.write_text("vidéo3\n", encoding="utf-8")
    assert call(tmp_path / "b.safetensors", annotations, "--train-ids", str(seen)) == 0
    output = capsys.readouterr().out
    assert "! half-precision" in output and "! training-videos: 1 of 6" in output
    assert "vidéo3" in output


def test_mistakes_are_one_line(tmp_path, annotations, capsys):
    np.save(tmp_path / "small.npy", np.eye(5, dtype=np.float32))
    np.save(tmp_path / "nan.npy", np.full((6, 6), np.nan, dtype=np.float32))
    np.save(tmp_path / "inf.npy", np.full((6, 6), np.inf, dtype=np.float32))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    for name, said in {
        "small.npy": "the annotations hold 6 captions of 6 videos, so it must be (6, 6)",
        "nan.npy": "holds NaN or infinity",
        "inf.npy": "holds NaN or infinity",
        "objects.npy": "is no .npy or .safetensors of one matrix",
        "gone.npy": "No such file",
    }.items():
        assert call(tmp_path / name, annotations) == 2
        assert said in capsys.readouterr().err
    assert call(tmp_path / "small.npy", tmp_path / "gone.json") == 2
    assert "gone.json is not a file" in capsys.readouterr().err
    assert main(["x.npy", "--dataset", "msrvtt-1kb", "--annotations", str(annotations)]) == 2
    assert "known are msrvtt-1ka" in capsys.readouterr().err
