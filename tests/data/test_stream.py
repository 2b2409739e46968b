import gc
import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

import av
import pytest
import torch
from torch.utils.data import get_worker_info

import vmm.data.stream as stream_module
from vmm.data.corpora import Mixture
from vmm.data.faults import BadSamples, UnusableData
from vmm.data.isolation import IsolatedDecoder
from vmm.data.loader import TrainLoader
from vmm.data.shards import ShardSet
from vmm.data.stream import TrainStream
from vmm.data.transforms import ClipSettings

SETTINGS = ClipSettings(num_frames=4, image_size=16, crop_scale=(0.3, 1.0))


def one(shards, media="video", seed=0):
    return Mixture({"": ShardSet(shards, media)}, seed=seed)


def make_stream(folder, seed=0, **options):
    sources = {m: one(f"{folder}/{m}-*.tar", m, seed) for m in ("video", "image")}
    sizes = options.pop("batch_sizes", {"video": 8, "image": 4})
    return TrainStream(sources, sizes, SETTINGS, seed, **options)


def loader(stream, workers=0, completed=0):
    return TrainLoader(stream, workers, lambda: completed, timeout=60)


def assert_equal(actual, expected):
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        assert (one["key"], one["text"], one["media"]) == (
            other["key"],
            other["text"],
            other["media"],
        )
        assert torch.equal(one["idx"], other["idx"]) and torch.equal(one["video"], other["video"])


def test_copies_stand_side_by_side_and_are_decoded_once(coded_shards, monkeypatch):
    erasing = replace(SETTINGS, random_erasing=1.0)  # the frames are of one colour
    sources = {m: one(f"{coded_shards}/{m}-*.tar", m) for m in ("video", "image")}
    plain = list(TrainStream(sources, {"video": 8, "image": 4}, erasing))
    decoded = []
    load = stream_module.load_frames
    monkeypatch.setattr(
        stream_module, "load_frames", lambda *a: decoded.append(a[0].key) or load(*a)
    )
    settings = replace(erasing, aug_repeats=2)
    batches = list(TrainStream(sources, {"video": 8, "image": 4}, settings))
    assert len(batches) == len(plain) and len(decoded) == sum(len(b["key"]) for b in plain)
    for batch, once in zip(batches, plain, strict=True):
        assert batch["key"][::2] == batch["key"][1::2] == once["key"]
        assert batch["text"][::2] == once["text"] and len(batch["idx"]) == 2 * len(once["idx"])
        assert torch.equal(batch["video"][::2], once["video"])
        assert not torch.equal(batch["video"][1::2], once["video"])


def test_repeats_of_the_sampler_go_to_different_ranks(coded_shards):
    erasing = replace(SETTINGS, random_erasing=1.0)
    sources = {"video": one(f"{coded_shards}/video-*.tar")}

    def make(rank, ranks, repeats):
        return TrainStream(
            sources, {"video": 6}, erasing, rank=rank, world_size=ranks, sampler_repeats=repeats
        )

    streams = [make(rank, 3, 3) for rank in range(3)]
    plain = make(0, 1, 1)
    order = [key for step in range(6) for key in plain.batch(step)["key"]]
    for step in range(4):
        batches = [stream.batch(step) for stream in streams]
        for batch in batches:  # each rank has every sample once
            assert batch["key"] == order[6 * step : 6 * step + 6]
        assert not torch.equal(batches[0]["video"], batches[1]["video"])  # augmented anew
    assert torch.equal(streams[0].batch(0)["video"], plain.batch(0)["video"])
    assert streams[0].taken(4) == {"video": 72} and len(streams[0]) == 40 // 18
    alone = make(0, 1, 3)
    assert alone.batch(1)["key"] == [key for key in order[2:4] for _ in range(3)]
    assert alone.identity() != plain.identity()


def first_pixels(video):
    return video[0].float()


def test_batches_hold_one_media_type_and_matching_captions(coded_shards, tools):
    batches = list(loader(make_stream(coded_shards)))
    assert len(batches) == 40 // 8 + 16 // 4
    for batch in batches:
        frames, size = (4, 8) if batch["media"] == "video" else (1, 4)
        assert batch["video"].shape == (size, frames, 3, 16, 16)
        assert batch["video"].dtype == torch.uint8 and batch["idx"].dtype == torch.int64
        for video, text in zip(batch["video"], batch["text"], strict=True):
            assert text == f"{batch['media']} {tools.code_of(first_pixels(video))}"


def test_an_epoch_uses_every_sample_once_with_its_own_idx(coded_shards):
    stream = make_stream(coded_shards)
    for epoch in range(2):
        batches = [stream.batch(epoch * len(stream) + step) for step in range(len(stream))]
        assert sorted(i for b in batches for i in b["idx"].tolist()) == list(range(56))
        assert len({k for b in batches for k in b["key"]}) == 56


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_change_the_batches(coded_shards, workers):
    stream = make_stream(coded_shards, steps_per_epoch=7)
    assert_equal(list(loader(stream, workers)), [stream.batch(step) for step in range(7)])


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_share_the_same_global_batches(coded_shards, world_size):
    whole = make_stream(coded_shards)
    sizes = {"video": 8 // world_size, "image": 4 // world_size}
    ranks = [
        make_stream(coded_shards, batch_sizes=sizes, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    assert {len(rank) for rank in ranks} == {len(whole)}
    for step in (0, 3, 8, 20):
        parts = [rank.batch(step) for rank in ranks]
        joined = {
            "video": torch.cat([part["video"] for part in parts]),
            "idx": torch.cat([part["idx"] for part in parts]),
            "text": [text for part in parts for text in part["text"]],
            "key": [key for part in parts for key in part["key"]],
            "media": parts[0]["media"],
        }
        assert_equal([joined], [whole.batch(step)])


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_loader_goes_on_where_training_stands(coded_shards, workers):
    stream = make_stream(coded_shards, steps_per_epoch=5)
    expected = [make_stream(coded_shards).batch(step) for step in range(3, 8)]
    assert_equal(list(loader(stream, workers, completed=3)), expected)
    assert_equal(list(loader(stream, workers, completed=3)), expected)  # iterating twice is safe


def test_epochs_of_fixed_length_wrap_around_the_data(coded_shards):
    stream = make_stream(coded_shards, steps_per_epoch=4)
    assert len(stream) == len(loader(stream)) == 4
    drawn = [stream.batch(step) for step in range(27)]  # 3 rounds of 9 steps, 7 epochs
    idx = [i for batch in drawn for i in batch["idx"].tolist()]
    assert sorted(idx) == sorted(list(range(56)) * 3)


def test_augmentation_and_order_differ_between_passes_and_seeds(coded_shards):
    stream = make_stream(coded_shards)
    orders = {
        tuple(key for step in range(s, s + 9) for key in stream.batch(step)["key"])
        for s in (0, 9, 18)
    } | {
        tuple(k for step in range(9) for k in make_stream(coded_shards, seed=1).batch(step)["key"])
    }
    assert len(orders) == 4


def test_equal_captions_can_share_an_idx(tools, tmp_path):
    members = [
        member
        for number, caption in enumerate(["A dog", "a dog", "a cat", "a bird"])
        for member in (
            (f"{number}.mp4", tools.coded_mp4(number)),
            (f"{number}.txt", caption.encode()),
        )
    ]
    tools.write_tar(tmp_path / "a.tar", members)
    videos = one(f"{tmp_path}/a.tar")
    for positives, distinct in (("sample", 4), ("caption", 3)):
        stream = TrainStream({"video": videos}, {"video": 4}, SETTINGS, positives=positives)
        batch = stream.batch(0)
        assert len(set(batch["idx"].tolist())) == distinct
        assert (batch["idx"] >= 0).all()


def test_rows_of_two_media_can_be_counted_apart_or_as_published(coded_shards):
    """As published, row 3 of the videos and row 3 of the images are positives by accident."""
    for positives, distinct in (("sample", True), ("row", False)):
        stream = make_stream(coded_shards, positives=positives)
        rows = {"video": set(), "image": set()}
        for step in range(9):
            batch = stream.batch(step)
            rows[batch["media"]] |= set(batch["idx"].tolist())
        assert rows["video"] and rows["image"]
        assert rows["video"].isdisjoint(rows["image"]) == distinct


def test_one_of_several_captions_is_drawn(tools, tmp_path):
    captions = ["one", "two", "three"]
    members = [
        ("a.mp4", tools.coded_mp4(1)),
        ("a.json", json.dumps({"caption": captions}).encode()),
    ]
    videos = one(str(tools.write_tar(tmp_path / "a.tar", members)))
    stream = TrainStream({"video": videos}, {"video": 1}, SETTINGS)
    assert {stream.batch(step)["text"][0] for step in range(30)} == set(captions)
    twice = TrainStream({"video": videos}, {"video": 1}, replace(SETTINGS, aug_repeats=2))
    batches = [twice.batch(step) for step in range(60)]
    pairs = {(a, b) for a in captions for b in captions}
    assert {tuple(b["text"]) for b in batches} == pairs
    assert all(b["idx"][0] == b["idx"][1] for b in batches)  # positives of each other


@pytest.fixture
def partly_broken(tools, tmp_path):
    """16 videos of which 5 cannot be decoded, each in another way."""
    broken = {
        2: b"garbage",
        5: b"",
        7: tools.coded_mp4(7)[:500],
        11: tools.coded_jpeg(11),
        13: b"\0" * 5000,
    }
    members = []
    for code in range(16):
        media, text, _ = tools.coded_sample(code)
        members += [(media[0], broken.get(code, media[1])), text]
    tools.write_tar(tmp_path / "video-0.tar", members)
    return tmp_path, broken


def test_a_broken_video_is_replaced_with_its_caption(partly_broken, tools):
    folder, broken = partly_broken
    record = folder / "bad.jsonl"
    videos = one(f"{folder}/video-0.tar")
    bad = BadSamples(str(record))
    stream = TrainStream({"video": videos}, {"video": 8}, SETTINGS, bad=bad)
    seen = []
    for step in range(4):
        batch = stream.batch(step)
        for video, text, key, idx in zip(
            batch["video"], batch["text"], batch["key"], batch["idx"].tolist(), strict=True
        ):
            code = tools.code_of(first_pixels(video))
            assert (text, key, idx) == (f"video {code}", f"video-0/{code:04d}", code)
            seen.append(code)
    assert len(seen) == 32 and not set(seen) & set(broken)
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    assert {int(line["key"]) for line in lines} == set(broken)
    assert len(lines) == len(broken) and bad.counts.total() >= 2 * len(broken)
    assert all(line["shard"] == "video-0" and line["reason"] for line in lines)
    drawn = Counter(key for step in range(20) for key in stream.batch(step)["key"])
    assert max(drawn.values()) <= 20  # 10 passes: not all replaced by the same few
    # The same on any topology, so the same when asked again.
    again = TrainStream({"video": videos}, {"video": 4}, SETTINGS, rank=1, world_size=2)
    assert again.batch(0)["key"] == stream.batch(0)["key"][4:]


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_but_broken_videos_is_one_clear_error(tools, tmp_path, workers):
    members = [m for c in range(4) for m in ((f"{c}.mp4", b"garbage"), (f"{c}.txt", b"a"))]
    tools.write_tar(tmp_path / "a.tar", members)
    videos = one(f"{tmp_path}/a.tar")
    stream = TrainStream({"video": videos}, {"video": 2}, SETTINGS)
    with pytest.raises(UnusableData, match=r"^8 videos in a row could not be decoded"):
        list(loader(stream, workers))
    assert not [child for child in multiprocessing.active_children() if child.daemon]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("isolate", [False, True])
def test_a_mistake_of_ours_stops_the_run_at_once(coded_shards, monkeypatch, workers, isolate):
    """A call that PyAV does not know is no eight broken videos: its trace says what is wrong."""
    sources = {"video": one(f"{coded_shards}/video-*.tar")}
    settings = ClipSettings(num_frames=4, image_size=16, isolate_decode=isolate)
    bad = BadSamples()
    stream = TrainStream(sources, {"video": 8}, settings, bad=bad)
    if isolate:  # the child is told, too, that this PyAV is an older one
        program = "import av; from vmm.data.isolation import serve; av.__version__ = 'old'; serve()"
        made = IsolatedDecoder(program=program)
        monkeypatch.setattr("vmm.data.clips.own_decoder", lambda: made)
    else:
        monkeypatch.setattr("av.__version__", "old")
    with pytest.raises((ValueError, RuntimeError), match=r"(?s)invalid literal") as caught:
        next(iter(loader(stream, workers)))
    assert not isinstance(caught.value, UnusableData) and not bad.counts


def test_too_few_samples_for_a_step(coded_shards):
    with pytest.raises(ValueError, match=r"16 images are fewer .* 2 processes needs 18"):
        make_stream(coded_shards, batch_sizes={"video": 4, "image": 9}, world_size=2)


def test_the_identity_is_that_of_the_global_batches(coded_shards):
    own = make_stream(coded_shards).identity()
    assert own == json.loads(json.dumps(own))
    half = {"video": 4, "image": 2}
    assert make_stream(coded_shards, batch_sizes=half, world_size=2).identity() == own
    assert make_stream(coded_shards, steps_per_epoch=3).identity() == own
    for options, name in (({"seed": 1}, "seed"), ({"batch_sizes": half}, "global_batch")):
        other = make_stream(coded_shards, **options).identity()
        assert {key for key in own if own[key] != other[key]} == {name}


def test_workers_outlive_the_signals_that_stop_a_run(coded_shards):
    stream = make_stream(coded_shards, steps_per_epoch=9)
    batches = iter(loader(stream, workers=1))
    first = next(batches)
    for worker in multiprocessing.active_children():
        for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM):
            os.kill(worker.pid, number)
    assert_equal([first, *batches], [stream.batch(step) for step in range(9)])


def test_a_pass_that_does_not_fill_its_last_batch_goes_on_into_the_next(coded_shards):
    """40 videos in batches of 12: 3 steps a round, and after 10 batches 3 whole passes."""
    stream = TrainStream({"video": one(f"{coded_shards}/video-*.tar")}, {"video": 12}, SETTINGS)
    assert len(stream) == 3
    drawn = [i for step in range(10) for i in stream.batch(step)["idx"].tolist()]
    for number in range(3):
        assert sorted(drawn[number * 40 : number * 40 + 40]) == list(range(40))


def test_corpora_mix_within_batches_in_proportion(tools, coded_shards):
    weights = {"a": 1.0, "b": 3.0}
    sets = {
        name: ShardSet(f"{coded_shards}/video-00{shard}.tar", "video", str(coded_shards))
        for shard, name in enumerate(weights)
    }
    stream = TrainStream({"video": Mixture(sets, weights)}, {"video": 8}, SETTINGS)
    assert len(stream) == 5
    drawn = [stream.batch(step) for step in range(5)]
    idx = [i for batch in drawn for i in batch["idx"].tolist()]
    assert sorted(idx) == sorted([*range(10), *range(10, 20), *range(10, 20), *range(10, 20)])
    for batch in drawn:  # of the two corpora alike, media and caption together
        assert {key.partition("/")[0] for key in batch["key"]} == {"video-000", "video-001"}
        for video, text, number in zip(batch["video"], batch["text"], batch["idx"], strict=True):
            assert text == f"video {tools.code_of(first_pixels(video))}" == f"video {number}"


def test_media_alternate_in_proportion_to_weighted_sizes(coded_shards):
    def share(weight):
        videos = Mixture({"": ShardSet(f"{coded_shards}/video-*.tar", "video")}, {"": weight})
        sources = {"video": videos, "image": one(f"{coded_shards}/image-*.tar", "image")}
        stream = TrainStream(sources, {"video": 8, "image": 4}, SETTINGS)
        media = [stream.batch(step)["media"] for step in range(len(stream))]
        return media.count("video"), media.count("image")

    assert (share(1.0), share(2.0)) == ((5, 4), (10, 4))


def test_bad_samples_can_be_skipped(partly_broken, tools):
    folder, broken = partly_broken
    videos = one(f"{folder}/video-0.tar")
    stream = TrainStream({"video": videos}, {"video": 8}, SETTINGS, on_bad="skip")
    drawn = [stream.batch(step) for step in range(2)]
    codes = [i for batch in drawn for i in batch["idx"].tolist()]
    assert sorted(codes) == [code for code in range(16) if code not in broken]
    for batch in drawn:
        for video, text in zip(batch["video"], batch["text"], strict=True):
            assert text == f"video {tools.code_of(first_pixels(video))}"
    alone = TrainStream({"video": videos}, {"video": 1}, SETTINGS, on_bad="skip")
    assert all(len(alone.batch(step)["key"]) == 1 for step in range(16))
    with pytest.raises(ValueError, match="unequal sizes on the 2 processes"):
        TrainStream({"video": videos}, {"video": 2}, SETTINGS, world_size=2, on_bad="skip")


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_bad_samples_stop_the_run_with_a_table(partly_broken, workers):
    folder, _ = partly_broken
    record = folder / "bad.jsonl"
    bad = BadSamples(str(record), limit=0.2)
    videos = {"video": one(f"{folder}/video-0.tar")}
    stream = TrainStream(videos, {"video": 4}, SETTINGS, steps_per_epoch=1000, bad=bad)
    with pytest.raises(UnusableData) as stop:
        list(loader(stream, workers))
    message = str(stop.value)
    assert "Traceback" not in message and "more than max_bad = 20%" in message
    assert all(reason in message for reason in ("unreadable", "empty", "e.g. 'video-0/00"))
    assert str(record) in message


@pytest.mark.parametrize("failure", ["dead", "stuck"])
def test_a_dead_or_stuck_worker_is_an_error_that_says_what_it_read(
    coded_shards, monkeypatch, failure, capfd
):
    stream = make_stream(coded_shards, steps_per_epoch=500)
    read = Mixture.read

    def fail_in_time(self, place):
        stream.reads = getattr(stream, "reads", 0) + 1
        if stream.reads == 20 and get_worker_info() is not None:
            if failure == "dead":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(3600)
        return read(self, place)

    monkeypatch.setattr(Mixture, "read", fail_in_time)
    with pytest.raises(RuntimeError, match=r"reading: worker 0: '(video|image)-00\d/00\d\d'"):
        list(TrainLoader(stream, 1, lambda: 0, timeout=2))
    assert ("fail_in_time" in capfd.readouterr().err) == (failure == "stuck")


def test_workers_leave_their_parent_s_garbage_alone(coded_shards, tools, monkeypatch):
    read = Mixture.read

    def read_and_collect(self, place):
        gc.collect()
        return read(self, place)

    monkeypatch.setattr(Mixture, "read", read_and_collect)
    gc.disable()  # the parent keeps its garbage until the workers are there
    try:
        container = av.open(io.BytesIO(tools.coded_mp4(1)))
        container.streams.video[0].thread_type = "AUTO"
        next(container.decode(video=0))
        cycle = [container]
        cycle.append(cycle)
        del container, cycle
        stream = make_stream(coded_shards, steps_per_epoch=2)
        assert len(list(TrainLoader(stream, 1, lambda: 0, timeout=10))) == 2
    finally:
        gc.enable()


def test_a_lost_shard_costs_its_samples_only(tools, tmp_path):
    for shard in range(3):
        codes = range(shard * 4, shard * 4 + 4)
        members = [m for code in codes for m in tools.coded_sample(code)]
        tools.write_tar(tmp_path / f"{shard}.tar", members)
    record = tmp_path / "bad.jsonl"
    bad = BadSamples(str(record))
    videos = {"video": one(f"{tmp_path}/*.tar")}
    stream = TrainStream(videos, {"video": 4}, SETTINGS, steps_per_epoch=9, bad=bad)
    (tmp_path / "1.tar").unlink()
    for batch in loader(stream, 1):
        assert all(not key.startswith("1/") for key in batch["key"])
        for video, text in zip(batch["video"], batch["text"], strict=True):
            assert text == f"video {tools.code_of(first_pixels(video))}"
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    assert {line["shard"] for line in lines} == {"1"} and len(lines) == 4
    assert all("FileNotFoundError" in line["detail"] for line in lines)


SCRIPT = """
import sys
import time
from vmm.data.corpora import open_corpora
from vmm.data.isolation import IsolatedDecoder
from vmm.data.loader import TrainLoader
from vmm.data.stream import TrainStream
from vmm.data.transforms import ClipSettings
sources = open_corpora({"video": sys.argv[1]}, seed=0)
stream = TrainStream(sources, {"video": 4}, ClipSettings(4, 16))
batches = iter(TrainLoader(stream, 1, lambda: 0))
next(batches)
raise KeyError("training failed")
"""


def test_a_failed_run_does_not_wait_for_its_workers(coded_shards, root):
    command = [sys.executable, "-c", SCRIPT, f"{coded_shards}/video-*.tar"]
    result = subprocess.run(command, cwd=root, capture_output=True, timeout=60, check=False)
    assert result.returncode == 1 and b"KeyError: 'training failed'" in result.stderr


ORPHAN = """
import multiprocessing, os, signal, sys, time
from vmm.data.loader import init_worker
def work(delay):
    time.sleep(delay)
    init_worker(0)
    time.sleep(60)
worker = multiprocessing.get_context("fork").Process(target=work, args=(float(sys.argv[1]),))
worker.start()
time.sleep(0.5)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("delay", [0, 1])
def test_a_worker_ends_with_a_parent_that_is_killed(delay):
    # After a second the parent is dead already: the worker must not take its heir for it.
    program = [sys.executable, "-c", ORPHAN, str(delay)]
    with subprocess.Popen(program, stdout=subprocess.PIPE) as parent:
        began = time.monotonic()
        parent.communicate(timeout=30)  # until nobody holds the pipe any more
        assert parent.returncode == -signal.SIGKILL
        assert time.monotonic() - began < 20
