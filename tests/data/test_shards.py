import json
import logging

import pytest
import torch

from vmm.data.patterns import expand_shards, short_names
from vmm.data.shards import BadSamples, DecodeError, EvaluationClips, ShardSet
from vmm.data.transforms import IMAGENET_MEAN, IMAGENET_STD, ClipSettings

SETTINGS = ClipSettings(num_frames=4, image_size=16)


def pixels(video):
    """Undo the normalisation: (T, C, H, W) values in 0 to 255."""
    std, mean = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_STD, IMAGENET_MEAN))
    return (video * std + mean) * 255


@pytest.fixture
def four_files(tmp_path, monkeypatch):
    for name in ("a/0.tar", "a/1.tar", "a/2.tar", "b/0.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ("a/1.tar", ["a/1.tar"]),
        ("a/{0..2}.tar", ["a/0.tar", "a/1.tar", "a/2.tar"]),
        ("a/{2,0}.tar", ["a/2.tar", "a/0.tar"]),
        ("*/0.tar", ["a/0.tar", "b/0.tar"]),
        ("{b,a}/*.tar", ["b/0.tar", "a/0.tar", "a/1.tar", "a/2.tar"]),
        (["b/*.tar", "a/0.tar"], ["b/0.tar", "a/0.tar"]),
        ("$VMM_TEST_ROOT/{0..1}.tar", ["a/0.tar", "a/1.tar"]),
        ("${VMM_TEST_ROOT}/0.tar", ["a/0.tar"]),
    ],
)
def test_patterns(four_files, monkeypatch, patterns, expected):
    monkeypatch.setenv("VMM_TEST_ROOT", "a")
    assert expand_shards(patterns) == expected


@pytest.mark.parametrize("pattern", ["c/0.tar", "a/x-*.tar", "a/{7..9}.tar", "a", ""])
def test_a_pattern_without_files_is_named(four_files, pattern):
    with pytest.raises(ValueError, match="matches no file") as caught:
        expand_shards(["a/0.tar", pattern])
    assert repr(pattern) in str(caught.value)


def test_a_missing_variable_is_named(four_files, monkeypatch):
    monkeypatch.delenv("VMM_TEST_ROOT", raising=False)
    with pytest.raises(ValueError, match="environment variable VMM_TEST_ROOT"):
        expand_shards("$VMM_TEST_ROOT/0.tar")


def test_gaps_and_repeats_are_logged(four_files, caplog):
    assert expand_shards(["a/{0..5}.tar", "a/0.tar"]) == ["a/0.tar", "a/1.tar", "a/2.tar"]
    assert "3 of 6 shards are missing, the first is a/3.tar" in caplog.text
    assert "a second time" in caplog.text


def test_short_names_tell_shards_apart_without_showing_the_machine():
    assert short_names(["/data/x/0.tar", "/data/y/0.tar"]) == ["x/0", "y/0"]
    assert short_names(["/data/x/0.tar"]) == ["0"]


def test_samples_are_read_whole_and_numbered(coded_shards):
    videos = ShardSet(f"{coded_shards}/video-*.tar", "video", recent=1)
    assert len(videos) == 40
    for number in (39, 0, 11, 10, 9):  # jumps between shards, of which one index is kept
        raw = videos.read(*videos.locate(number))
        assert raw.number == number and raw.captions == [f"video {number}"]
        assert raw.metadata["code"] == number
        assert raw.key == f"video-{number // 10:03d}/{number:04d}"


def test_what_is_left_out_is_counted(tools, tmp_path, caplog):
    shard = tools.write_tar(
        tmp_path / "a.tar",
        [
            *tools.coded_sample(1),
            ("no_video.txt", b"a download that failed"),
            ("no_video.json", b'{"status": "failed"}'),
            ("no_caption.mp4", tools.coded_mp4(2)),
            ("blank.mp4", tools.coded_mp4(3)),
            ("blank.txt", b" "),
            *tools.coded_sample(4, "image"),
            ("notes.md", b"hello"),
        ],
    )
    videos = ShardSet(str(shard), "video")
    assert len(videos) == 1
    assert videos.skipped == {
        "no video": 2,
        "no caption": 2,
        "member not part of a sample": 1,
    }
    assert (
        "1 videos in 1 shards; skipped: 1 member not part of a sample, 2 no caption" in caplog.text
    )
    with pytest.raises(ValueError, match=r"no image .*KEY\.mp4") as caught:
        ShardSet(str(tools.write_tar(tmp_path / "b.tar", tools.coded_sample(1))), "image")
    assert "1 no image" in str(caught.value)


def test_a_truncated_shard_is_reported_and_its_whole_samples_used(tools, tmp_path, caplog):
    shard = tools.write_tar(tmp_path / "a.tar", tools.coded_sample(1) + tools.coded_sample(2))
    content = shard.read_bytes()
    shard.write_bytes(content[: content.index(b"0002.json")])
    videos = ShardSet(str(shard), "video")
    assert len(videos) == 2 and videos.damaged and "shard a is damaged" in caplog.text


def test_a_shard_that_changes_during_the_run_is_noticed(tools, tmp_path):
    shard = tools.write_tar(tmp_path / "a.tar", tools.coded_sample(1) + tools.coded_sample(2))
    videos = ShardSet(str(shard), "video")
    tools.write_tar(shard, tools.coded_sample(1))
    with pytest.raises(ValueError, match="changed while it was in use: 2 samples before, 1 now"):
        videos.read(0, 0)


def test_evaluation_shows_every_sample_once_in_order(coded_shards, tools):
    clips = EvaluationClips(f"{coded_shards}/video-*.tar", SETTINGS)
    assert len(clips) == 40 and len(clips.shards) == 4
    for number, sample in enumerate(clips):
        assert sample.number == number and sample.problem is None
        assert sample.captions == [f"video {number}"] and sample.metadata["code"] == number
        assert tools.code_of(pixels(sample.video)[0]) == number
    assert clips.media(3) == ("mp4", tools.coded_mp4(3))
    with pytest.raises(IndexError):
        clips[40]


def test_evaluation_reads_images(coded_shards, tools):
    images = EvaluationClips(f"{coded_shards}/image-*.tar", SETTINGS, kind="image")
    assert [tools.code_of(pixels(s.video)[0]) for s in images] == list(range(40, 56))
    assert images[0].video.shape == (1, 3, 16, 16)


def test_reversed_evaluation_plays_the_same_frames_backwards(tools, tmp_path):
    clip = tools.encode_video(tools.moving_picture(12))
    shard = tools.write_tar(tmp_path / "a.tar", [("a.mp4", clip), ("a.txt", b"noise")])
    forward, backward = (
        EvaluationClips(str(shard), SETTINGS, frame_order=order)[0].video
        for order in ("forward", "reversed")
    )
    assert torch.equal(forward.flip(0), backward) and not torch.equal(forward, backward)


def test_an_unreadable_sample_is_reported_and_not_replaced(tools, tmp_path):
    good = tools.coded_sample(1)
    broken = [("b.mp4", good[0][1][:300]), ("b.txt", b"broken"), ("b.json", b'{"x": 1}')]
    shard = tools.write_tar(tmp_path / "a.tar", good + broken + tools.coded_sample(2))
    bad = BadSamples(str(tmp_path / "made" / "bad.jsonl"))
    samples = list(EvaluationClips(str(shard), SETTINGS, bad=bad))
    assert [s.problem for s in samples] == [None, "unreadable", None]
    assert samples[1].video is None and samples[1].captions == ["broken"]
    assert samples[1].metadata == {"x": 1} and bad.counts == {"unreadable": 1}
    (line,) = (tmp_path / "made" / "bad.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert (record["shard"], record["key"], record["reason"]) == ("a", "b", "unreadable")


def test_bad_samples_are_logged_now_and_then(caplog):
    bad = BadSamples()
    with caplog.at_level(logging.WARNING):
        for number in range(120):
            bad.add(f"shard/{number}", DecodeError("too long", "9 frames"))
        bad.add("shard/x", DecodeError("empty", "0 bytes"))
    assert [r.args[0] for r in caplog.records] == ["shard/0", "shard/9", "shard/99", "shard/x"]
