import json
import sys
import tarfile
from collections import Counter
from dataclasses import replace

import pytest
import torch

import vmm.data.resampled as module
from vmm.data.corpora import Corpus
from vmm.data.datamodules import WebVideoData
from vmm.data.faults import BadSamples, UnusableData
from vmm.data.loader import TrainLoader
from vmm.data.resampled import ResampledStream, read_stream
from vmm.data.schema import text_fault
from vmm.data.transforms import ClipSettings

pytest.importorskip("webdataset.gopen", reason="webdataset is not installed")
SETTINGS = ClipSettings(num_frames=2, image_size=16)
SIZES = {"video": 4, "image": 4}


def first_pixels(video):
    return video[0].float()


def make(sources, steps=5, **options):
    return ResampledStream(sources, SIZES, SETTINGS, steps, shuffle=10, **options)


@pytest.mark.parametrize("workers", [0, 2])
def test_piped_shards_train_with_the_right_captions(coded_shards, tools, workers, caplog):
    stream = make(
        {
            "video": f"pipe:cat {coded_shards}/video-{{000..003}}.tar",
            "image": [f"file://{coded_shards}/image-{{000..001}}.tar"],
        },
        steps=30,
    )
    assert "not exactly" in caplog.text
    batches = list(TrainLoader(stream, workers, lambda: 0, timeout=60))
    assert Counter(batch["media"] for batch in batches) == {"video": 20, "image": 10}
    texts = {text for batch in batches for text in batch["text"]}
    assert len(texts) > 20
    keys = {}
    for batch in batches:
        assert len(batch["key"]) == 4
        for video, text, key, idx in zip(
            batch["video"], batch["text"], batch["key"], batch["idx"].tolist(), strict=True
        ):
            assert text == f"{batch['media']} {tools.code_of(first_pixels(video))}"
            assert keys.setdefault(key, idx) == idx and idx >= 0
    assert len(set(keys.values())) == len(keys) == len(texts)


def test_copies_stand_side_by_side(coded_shards):
    source = {"video": f"pipe:cat {coded_shards}/video-000.tar"}
    stream = ResampledStream(source, SIZES, replace(SETTINGS, aug_repeats=3, random_erasing=1.0), 2)
    for batch in stream:
        assert len(batch["key"]) == 12 and batch["key"][::3] == batch["key"][2::3]
        assert not torch.equal(batch["video"][0], batch["video"][1])


def test_a_continued_run_and_another_rank_draw_other_samples(coded_shards):
    def keys(first, rank):
        stream = make({"video": f"pipe:cat {coded_shards}/video-{{000..003}}.tar"}, rank=rank)
        stream.first_step = first
        return tuple(key for batch in stream for key in batch["key"])

    assert keys(0, 0) == keys(0, 0)
    assert len({keys(0, 0), keys(5, 0), keys(0, 1)}) == 3


def test_weights_choose_the_shards(coded_shards):
    corpora = {
        "a": Corpus(f"pipe:cat {coded_shards}/video-000.tar", 9.0),
        "b": Corpus(f"pipe:cat {coded_shards}/video-001.tar", 1.0),
    }
    drawn = [k for batch in make({"video": corpora}, steps=100) for k in batch["key"]]
    share = sum("video-000" in key for key in drawn) / len(drawn)
    assert 0.8 < share < 0.97


def whole(tools):
    return [m for code in range(3) for m in tools.coded_sample(code)]


@pytest.mark.parametrize(
    ("damage", "kept", "reason"),
    [
        (lambda d: d, 3, None),
        (lambda d: d[: d.index(b"0001.mp4") + 600], 1, "damaged shard"),
        (lambda d: b"<html>" * 300, 0, "damaged shard"),
        (lambda d: b"", 0, "damaged shard"),
    ],
)
def test_damaged_streams_end_the_shard_only(tools, tmp_path, damage, kept, reason):
    path = tools.write_tar(tmp_path / "a.tar", whole(tools))
    path.write_bytes(damage(path.read_bytes()))
    bad = BadSamples(str(tmp_path / "bad.jsonl"))
    assert len(list(read_stream(f"pipe:cat {path}", "video", bad))) == kept
    if reason:
        (line,) = (tmp_path / "bad.jsonl").read_text().splitlines()
        assert json.loads(line)["reason"] == reason


def test_what_is_left_out_of_a_stream_is_recorded(tools, tmp_path):
    members = [
        ("1.txt", b"a failed download"), ("1.json", b'{"status": "failed_to_download"}'),
        *tools.coded_sample(2),
        ("3.mp4", tools.coded_mp4(3)),
        ("../4.mp4", tools.coded_mp4(4)), ("../4.txt", b"up" * 2**16),
        ("5.m4a", b"sound"),
        ("6.mp4", tools.coded_mp4(6)), ("6.txt", b"caf\xe9"),
        ("7.mp4", tools.coded_mp4(7)), ("._7.txt", b"\0\5\x16\7Mac"),
        ("7.txt", "video 7".encode("utf-16")), ("7.txt", b"again"), ("notes.md", b"hello"),
    ]  # fmt: skip
    url = str(tools.write_tar(tmp_path / "a.tar", members))
    bad = BadSamples(str(tmp_path / "bad.jsonl"))
    samples = list(read_stream(url, "video", bad))
    assert [raw.captions for raw in samples] == [["video 2"], ["video 7"]]
    lines = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert [(line["key"], line["reason"], line["detail"]) for line in lines] == [
        ("1", "no video", "failed_to_download"),
        ("3", "no caption", ""),
        ("../4.txt", "member too large", ""),
        ("../4", "no caption", ""),
        ("6", "bad caption", text_fault(b"caf\xe9")),
        ("._7.txt", "member left by a system", ""),
        ("7.txt", "member repeated name", ""),
        ("notes.md", "member not part of a sample", ""),
    ]
    assert not (tmp_path.parent / "4.mp4").exists()


def test_shards_that_never_come_are_a_clear_error(tmp_path):
    stream = make({"video": "pipe:exit 3"}, bad=BadSamples(str(tmp_path / "bad.jsonl")))
    with pytest.raises(UnusableData, match=r"8 shards in a row .* pipe:exit 3"):
        list(TrainLoader(stream, 0, lambda: 0))
    assert "damaged shard" in (tmp_path / "bad.jsonl").read_text()


def test_eight_fruitless_shards_are_enough(monkeypatch):
    opened = []
    monkeypatch.setattr(module, "read_stream", lambda *a: opened.append(a) or iter(()))
    with pytest.raises(UnusableData):
        list(TrainLoader(make({"video": "pipe:true"}), 0, lambda: 0))
    assert len(opened) == 8


def test_broken_clips_are_counted_and_left_out(tools, tmp_path):
    members = [("9.mp4", b"garbage"), ("9.txt", b"broken"), *whole(tools)]
    url = f"pipe:cat {tools.write_tar(tmp_path / 'a.tar', members)}"
    bad = BadSamples(str(tmp_path / "bad.jsonl"))
    texts = {t for batch in make({"video": url}, steps=20, bad=bad) for t in batch["text"]}
    assert texts == {"video 0", "video 1", "video 2"} and bad.counts["unreadable"] > 3


@pytest.mark.timeout(30)
@pytest.mark.parametrize("size", [2**62, 2**31, -512])
def test_impossible_sizes_neither_hang_nor_fill_the_memory(tmp_path, size):
    header = tarfile.TarInfo("a.mp4")
    header.size = size
    path = tmp_path / "a.tar"
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    bad = BadSamples(str(tmp_path / "bad.jsonl"))
    assert not list(read_stream(f"pipe:cat {path}", "video", bad))
    assert "damaged shard" in (tmp_path / "bad.jsonl").read_text()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://b/a b.tar", "pipe:aws s3 cp 's3://b/a b.tar' -"),
        ("https://h/a.tar", "https://h/a.tar"),
    ],
)
def test_object_stores_go_through_webdataset(monkeypatch, url, expected):
    opened = []

    def gopen(url):
        opened.append(url)
        raise OSError("no network")

    monkeypatch.setattr(sys.modules["webdataset.gopen"], "gopen", gopen)
    assert not list(read_stream(url, "video", BadSamples()))
    assert opened == [expected]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps_per_epoch": None}, "set data.init_args.steps_per_epoch"),
        ({"positives": "row"}, "use positives='sample'"),
    ],
)
def test_what_streams_cannot_do_is_refused(options, message):
    settings = {"num_frames": 2, "image_size": 16, "steps_per_epoch": 5} | options
    data = WebVideoData(train_videos="s3://bucket/{0..3}.tar", **settings)
    data.prepare_data()  # looks at nothing
    with pytest.raises(ValueError, match=message):
        data.train_dataloader()


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'pip install "vmm-video\[remote\]"'):
        make({"video": "s3://bucket/0.tar"})
    monkeypatch.delitem(sys.modules, "webdataset", raising=False)


def test_evaluation_needs_local_shards():
    data = WebVideoData(test_videos="s3://bucket/0.tar", num_frames=2, image_size=16)
    with pytest.raises(ValueError, match="for training only"):
        data.test_dataloader()
