import errno
import json
import os

import pytest
import torch

import vmm.data.shards as shard_module
from vmm.data.faults import BadSamples, SampleError
from vmm.data.resampled import read_stream
from vmm.data.shards import EvaluationClips, ShardSet
from vmm.data.transforms import IMAGENET_MEAN, IMAGENET_STD, ClipSettings

SETTINGS = ClipSettings(num_frames=4, image_size=16)


def pixels(video):
    """Undo the normalisation: (T, C, H, W) values in 0 to 255."""
    std, mean = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_STD, IMAGENET_MEAN))
    return (video * std + mean) * 255


def test_samples_are_read_whole_and_numbered(coded_shards):
    videos = ShardSet(f"{coded_shards}/video-*.tar", "video", recent=1)
    assert len(videos) == 40
    for number in (39, 0, 11, 10, 9):  # jumps between shards, of which one index is kept
        raw = videos.read(*videos.locate(number))
        assert raw.number == number and raw.captions == [f"video {number}"]
        assert raw.metadata["code"] == number
        assert raw.key == f"video-{number // 10:03d}/{number:04d}"


@pytest.mark.parametrize("apart", [False, True])
def test_neighbours_are_read_at_once_and_distant_members_alone(tools, tmp_path, monkeypatch, apart):
    """To a distant storage every request takes its time; gaps are not worth reading."""
    media, *texts = tools.coded_sample(7)
    between = [("7777.md", b"x" * (2**17 if apart else 2**15))]
    shard = tools.write_tar(tmp_path / "a.tar", [*texts, *between, media])
    videos = ShardSet(str(shard), "video")
    read, requests = os.pread, []

    def counted(file, size, offset):
        requests.append(size)
        return read(file, size, offset)

    monkeypatch.setattr(os, "pread", counted)
    raw = videos.read(0, 0)
    assert raw.data == media[1] and raw.captions == ["video 7"] and raw.metadata["code"] == 7
    assert len(requests) == (3 if apart else 1)
    assert sum(requests) < 2**16


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
    assert "1 video in 1 shard; skipped: 1 member not part of a sample, 2 no caption" in caplog.text
    with pytest.raises(ValueError, match=r"no image .*KEY\.mp4") as caught:
        ShardSet(str(tools.write_tar(tmp_path / "b.tar", tools.coded_sample(1))), "image")
    assert "1 no image" in str(caught.value)


def test_missing_shards_are_counted_and_named(coded_shards, caplog):
    videos = ShardSet(f"{coded_shards}/video-{{002..005}}.tar", "video")
    assert len(videos) == 20 and videos.skipped == {"missing shards": 2}
    assert [(bad.shard, bad.reason) for bad in videos.left_out()] == [
        (f"{coded_shards}/video-{shard}.tar", "missing shard") for shard in ("004", "005")
    ]
    assert "2 of 4 shards are missing, the first is" in caplog.text


def test_a_truncated_shard_is_reported_and_its_whole_samples_used(tools, tmp_path, caplog):
    shard = tools.write_tar(tmp_path / "a.tar", tools.coded_sample(1) + tools.coded_sample(2))
    content = shard.read_bytes()
    shard.write_bytes(content[: content.index(b"0002.json")])
    videos = ShardSet(str(shard), "video")
    assert len(videos) == 2 and videos.damaged and "shard a is damaged" in caplog.text
    (found,) = videos.left_out()
    assert found[:3] == ("a", "", "damaged shard") and "cut" in found.detail


def remove(shard, tools):
    shard.unlink()


def replace(shard, tools):
    other = shard.with_name("other.tar")
    tools.write_tar(other, tools.coded_sample(2) + tools.coded_sample(1))
    other.replace(shard)


def overwrite(shard, tools):
    content = bytearray(shard.read_bytes())
    with open(shard, "r+b") as file:
        file.write(bytes(reversed(content)))


def cut(shard, tools):
    os.truncate(shard, 700)


@pytest.mark.parametrize("opened", [True, False])
@pytest.mark.parametrize("change", [remove, replace, overwrite, cut])
def test_a_shard_that_changes_or_goes_gives_no_wrong_pairs(tools, tmp_path, change, opened):
    shard = tools.write_tar(tmp_path / "a.tar", tools.coded_sample(1) + tools.coded_sample(2))
    videos = ShardSet(str(shard), "video")
    before = videos.read(0, 0)
    if not opened:  # another process, which has not read from the shard yet
        videos = ShardSet(str(shard), "video")
        videos._recent.clear()
        shard_module._open.cache_clear()
    change(shard, tools)
    if opened and change in (remove, replace):  # the open file is still the old one
        assert videos.read(0, 0) == before
    else:
        with pytest.raises(SampleError, match=r"unreadable: a"):
            videos.read(0, 0)
        assert videos.name(0, 1)[0] == "a"


def test_a_stale_file_is_opened_anew(tools, tmp_path, monkeypatch):
    """As on a network file system: one read fails, and a fresh file handle is good again."""
    videos = ShardSet(str(tools.write_tar(tmp_path / "a.tar", tools.coded_sample(1))), "video")
    good = videos.read(0, 0)
    opened, read = [], os.pread

    def counted(*arguments, **options):
        opened.append(open(*arguments, **options))  # noqa: SIM115
        return opened[-1]

    monkeypatch.setattr(shard_module, "open", counted, raising=False)

    def fail(*arguments):
        raise OSError(errno.ESTALE, "stale file handle")

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(SampleError, match="unreadable: a: stale file handle"):
        videos.read(0, 0)
    monkeypatch.setattr(os, "pread", read)
    assert videos.read(0, 0) == good and len(opened) == 1


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


@pytest.mark.parametrize(
    ("member", "label"), [(b"207", 207), (b" 0\n", 0), (b"golden retriever", "golden retriever")]
)
def test_a_class_member_is_the_label_and_needs_no_caption(tools, tmp_path, member, label):
    (name, still), *_ = tools.coded_sample(1, "image")
    key = name.partition(".")[0]
    path = tools.write_tar(tmp_path / "a.tar", [(name, still), (f"{key}.cls", member)])
    with pytest.raises(ValueError, match="no caption"):
        ShardSet(str(path), "image")
    samples = ShardSet(str(path), "image", captioned=False)
    assert not samples.skipped and not list(samples.left_out())
    assert samples.read(0, 0).metadata == samples.metadata(0, 0) == {"label": label}
    (streamed,) = read_stream(str(path), "image", BadSamples(), captioned=False)
    assert streamed.metadata == {"label": label} and streamed.captions == []


def test_the_json_names_the_class_before_a_class_member(tools, tmp_path):
    (name, still), *_ = tools.coded_sample(1, "image")
    key = name.partition(".")[0]
    members = [(name, still), (f"{key}.cls", b"3"), (f"{key}.json", b'{"label": "cat"}')]
    path = tools.write_tar(tmp_path / "a.tar", members)
    assert ShardSet(str(path), "image", captioned=False).read(0, 0).metadata == {"label": "cat"}
