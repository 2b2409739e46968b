import multiprocessing
import os
import random
import re
import shutil
import signal
import tarfile
import time
from functools import partial

import numpy as np
import pytest

from tests.data.videos import encode_video, moving_picture
from tests.search.plain import encode_to_be_killed, move_to_be_killed
from vmm.data.isolation import IsolatedDecoder
from vmm.export.encoder import VideoTextEncoder
from vmm.search.encode import Share, clip_of, encode_videos
from vmm.search.index import Index, Settings
from vmm.search.parts import read_part
from vmm.search.sources import Source
from vmm.search.windows import load_moments, spans_of


def contents(index):
    """{video: (spans, vectors)}, checked to have each row once."""
    moments = index.moments()
    vectors = np.concatenate([np.zeros((0, 24), np.float32), *moments.vectors])
    tables = {}
    for number, source in enumerate(moments.videos):
        rows = np.flatnonzero(moments.owner == number)
        rows = rows[np.lexsort((rows, moments.spans[rows, 0]))]
        tables[source] = moments.spans[rows], vectors[rows]
    assert sum(len(spans) for spans, _ in tables.values()) == index.num_moments
    return tables


def expected(sources, encoder):
    """The same, from the definition."""
    tables = {}
    for source in sources:
        moments = list(
            load_moments(source.content(), lambda t: spans_of(t, 1.0, 0.5), encoder.clip)
        )
        spans = np.array([span for span, _ in moments])
        tables[source] = spans, encoder.encode_video([clip for _, clip in moments])
    return tables


def assert_same(tables, others):
    assert tables.keys() == others.keys()
    for source, (spans, vectors) in tables.items():
        assert np.array_equal(spans, others[source][0])
        assert np.allclose(vectors, others[source][1], atol=1e-6)


def test_vectors_that_are_no_numbers_stop_with_their_place(videos, encoder_folder, tmp_path):
    """What was encoded before stays."""
    real = VideoTextEncoder.from_pretrained(encoder_folder, device="cpu")
    settings = Settings(real.fingerprint, str(real.folder), real.embedding_dim, 1.0, 0.5)
    index = Index.create(tmp_path / "index", settings)
    encode_videos(index, real, [videos / "a.mp4"])
    real.model.vision_proj.weight.data[0, 0] = np.nan
    with pytest.raises(ValueError, match=r"up to 0\.4 s of .*b\.mkv: video 0 gives NaN"):
        encode_videos(index, real, [videos / "b.mkv"])
    assert [source.path.name for source in Index.open(index.folder).videos] == ["a.mp4"]


def sources_of(folder):
    return [Source(path) for path in sorted(folder.rglob("*.*"))]


def test_no_frames_are_not_as_many_as_usual(encoder):
    assert clip_of(encoder, None).num_frames == 2 and clip_of(encoder, 5).num_frames == 5
    with pytest.raises(ValueError, match="num_frames 0 "):
        clip_of(encoder, 0)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
@pytest.mark.parametrize("flush_seconds", [0, 100])
def test_every_moment_of_every_video(videos, new_index, encoder, batch_size, flush_seconds):
    counts = encode_videos(
        new_index(), encoder, [videos], batch_size=batch_size, flush_seconds=flush_seconds
    )
    index = new_index()
    assert counts.encoded == 3 and not index.problems
    assert_same(contents(index), expected(sources_of(videos), encoder))
    assert [round(v.record.seconds, 1) for v in index.videos.values()] == [3.2, 0.4, 2.0]
    assert (len(index.parts) > 1) == (flush_seconds == 0)
    records = [r for path in index.parts for r in read_part(path, encoder.embedding_dim).records]
    assert sum(record.done for record in records) == 3


def test_an_interrupted_film_goes_on_where_it_was(videos, new_index, encoder, monkeypatch):
    encode, calls = encoder.encode_video, []

    def interrupted(clips, **_):
        calls.append(len(clips))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(clips)

    monkeypatch.setattr(encoder, "encode_video", interrupted)
    film = videos / "a.mp4"
    with pytest.raises(KeyboardInterrupt):
        encode_videos(new_index(), encoder, [film], batch_size=2, flush_seconds=0)
    assert new_index().num_moments == 4 and not new_index().videos[Source(film)].record.done
    encode_videos(new_index(), encoder, [film], batch_size=2, flush_seconds=0)
    assert sum(calls) == 2 + new_index().num_moments  # the batch that was lost, once more
    assert_same(contents(new_index()), expected([Source(film)], encoder))


def test_only_what_is_new_or_changed_is_encoded(videos, new_index, encoder, monkeypatch):
    encode_videos(new_index(), encoder, [videos])
    looked_at = []
    encode = encoder.encode_video
    monkeypatch.setattr(
        encoder, "encode_video", lambda clips, **k: (looked_at.extend(clips), encode(clips))[1]
    )
    assert encode_videos(new_index(), encoder, [videos]).unchanged == 3

    os.utime(videos / "a.mp4", (1, 1))  # touched: read, but not encoded
    counts = encode_videos(new_index(), encoder, [videos])
    assert (counts.encoded, counts.reused, counts.unchanged, looked_at) == (0, 1, 2, [])
    assert encode_videos(new_index(), encoder, [videos]).unchanged == 3

    (videos / "a.mp4").write_bytes(encode_video(moving_picture(12, seed=9), rate=10))
    (videos / "b.mkv").unlink()
    (videos / "new.mp4").write_bytes(encode_video(moving_picture(10, seed=7), rate=10))
    counts = encode_videos(new_index(), encoder, [videos])
    assert (counts.encoded, counts.unchanged, counts.removed) == (2, 1, 1)
    assert len(looked_at) == 2 + 1
    assert_same(contents(new_index()), expected(sources_of(videos), encoder))


CRASHING = """
import os, signal
from vmm.data.decode import decode_parts
from vmm.data.isolation import serve
def parts(video, choose):
    for number, frames in enumerate(decode_parts(video, choose)):
        if number == 3: os.kill(os.getpid(), signal.SIGSEGV)
        yield frames
serve(parts=parts)
"""


def test_a_video_that_crashes_the_decoder_costs_its_rest_only(
    videos, new_index, encoder, monkeypatch
):
    crashing = partial(IsolatedDecoder, program=CRASHING)
    monkeypatch.setattr("vmm.search.encode.IsolatedDecoder", crashing)
    encode_videos(new_index(), encoder, [videos])
    monkeypatch.undo()
    index = new_index()
    problem = index.problems[Source(videos / "a.mp4")]
    assert problem.startswith("crashed") and problem.endswith("found up to 2.0 s")
    assert len(index.problems) == 1
    assert encode_videos(new_index(), encoder, [videos]).unchanged == 3  # not tried again
    found, whole = contents(index), expected(sources_of(videos), encoder)
    spans, vectors = found.pop(Source(videos / "a.mp4"))
    assert np.allclose(vectors, whole.pop(Source(videos / "a.mp4"))[1][: len(spans)], atol=1e-6)
    assert len(spans) == 3
    assert_same(found, whole)


def test_moved_renamed_and_copied_videos_are_not_encoded_again(
    videos, new_index, encoder, monkeypatch, tmp_path
):
    outside = tmp_path / "outside.mp4"
    outside.write_bytes(encode_video(moving_picture(15, seed=8), rate=10))
    encode_videos(new_index(), encoder, [videos, outside])
    with monkeypatch.context() as patch:
        patch.setattr(encoder, "encode_video", None)  # calling it would fail
        (videos / "a.mp4").rename(videos / "deep" / "renamed.mp4")
        (videos / "deep" / "c.AVI").rename(videos / "c.avi")
        shutil.copy(videos / "b.mkv", videos / "copy.mkv")
        outside.rename(videos / "inside.mp4")
        counts = encode_videos(new_index(), encoder, [videos])
    assert (counts.encoded, counts.reused, counts.unchanged, counts.removed) == (0, 4, 1, 3)
    assert_same(contents(new_index()), expected(sources_of(videos), encoder))
    index = new_index()
    index.compact()
    assert_same(contents(index), expected(sources_of(videos), encoder))
    assert encode_videos(index, encoder, [videos]).unchanged == 5

    with tarfile.open(videos / "shard.tar", "w") as tar:  # a member is found by its content, too
        tar.add(videos / "c.avi", "x.avi")
    (videos / "c.avi").unlink()
    counts = encode_videos(new_index(), encoder, [videos])
    assert (counts.encoded, counts.reused, counts.removed) == (0, 1, 1)


def test_an_empty_folder_is_a_drive_that_is_away(videos, new_index, encoder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(videos / "b.mkv", other)
    encode_videos(new_index(), encoder, [videos, other])
    videos.rename(tmp_path / "away")
    videos.mkdir()
    with pytest.raises(ValueError, match=r"videos is empty, and .*index knows 3 videos in it"):
        encode_videos(new_index(), encoder, [videos, other])
    videos.rmdir()
    (tmp_path / "away").rename(videos)
    assert encode_videos(new_index(), encoder, [videos, other]).unchanged == 4


def test_a_folder_that_cannot_be_read_is_told_and_kept(videos, new_index, encoder, monkeypatch):
    encode_videos(new_index(), encoder, [videos])
    scandir = os.scandir

    def refused(path):
        if os.path.basename(path) == "deep":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refused)
        counts = encode_videos(new_index(), encoder, [videos])
        assert (counts.removed, counts.failed) == (0, 1)
        assert encode_videos(new_index(), encoder, [videos]).failed == 0  # it is known
    index = new_index()
    assert index.problems == {
        Source(videos / "deep"): "a folder that cannot be read: Permission denied"
    }
    assert Source(videos / "deep" / "c.AVI") in index.videos
    encode_videos(new_index(), encoder, [videos])
    assert not new_index().problems and len(new_index().videos) == 3


def test_the_pace_counts_what_was_encoded(videos, new_index, encoder):
    counts = encode_videos(new_index(), encoder, [videos])
    assert counts.seconds == pytest.approx(5.6)
    assert counts.cpu_seconds > counts.decode_seconds > 0
    assert " s of video" in counts.pace and "decoding alone" in counts.pace
    again = encode_videos(new_index(), encoder, [videos])
    assert again.seconds == 0 and again.pace == ""
    both = counts + again
    assert (both.encoded, both.unchanged, both.seconds) == (3, 3, counts.seconds)


def test_videos_elsewhere_are_not_forgotten(videos, new_index, encoder, tmp_path):
    other = tmp_path / "other.mp4"
    other.write_bytes(encode_video(moving_picture(10), rate=10))
    encode_videos(new_index(), encoder, [videos, other])
    assert encode_videos(new_index(), encoder, [videos]).removed == 0
    other.unlink()
    assert encode_videos(new_index(), encoder, [videos / "a.mp4"]).removed == 0
    assert len(new_index().videos) == 4


def test_problems_are_recorded_and_the_rest_is_encoded(videos, new_index, encoder, tmp_path):
    data = encode_video(moving_picture(60, seed=5), rate=10, g="10", bf="0")
    middle = data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 2
    (videos / "damaged.mp4").write_bytes(data[:middle] + b"\xff" * 2000 + data[middle + 2000 :])
    (videos / "empty.mp4").write_bytes(b"")
    (videos / "noise.mp4").write_bytes(bytes(random.Random(0).randbytes(5000)))
    (tmp_path / "secret.mp4").write_bytes(data)
    (videos / "out.mp4").symlink_to(tmp_path / "secret.mp4")
    (videos / "dangling.mp4").symlink_to(videos / "nothing.mp4")
    counts = encode_videos(new_index(), encoder, [videos])
    assert (counts.encoded, counts.failed) == (4, 4)  # damaged.mp4 up to its damage
    index = new_index()
    told = {source.path.name: problem for source, problem in index.problems.items()}
    assert told["empty.mp4"] == "empty: 0 bytes"
    assert told["noise.mp4"].startswith("unreadable")
    assert "link out of the folder" in told["out.mp4"]
    assert "No such file" in told["nothing.mp4"] and len(told) == 5
    assert told["damaged.mp4"].startswith("unreadable") and "found up to" in told["damaged.mp4"]
    found = contents(index)
    assert len(found.pop(Source(videos / "damaged.mp4"))[0]) >= 3
    good = [videos / name for name in ("a.mp4", "b.mkv", "deep/c.AVI")]
    assert_same(found, expected(map(Source, good), encoder))

    parts = len(index.parts)  # problems are not looked at again, until the file changes
    counts = encode_videos(index, encoder, [videos / "damaged.mp4", videos / "empty.mp4"])
    assert (counts.encoded, counts.failed, counts.unchanged) == (0, 0, 2)
    assert len(new_index().parts) == parts
    (videos / "empty.mp4").write_bytes((videos / "a.mp4").read_bytes())
    encode_videos(new_index(), encoder, [videos])
    assert Source(videos / "empty.mp4") not in new_index().problems


def test_half_a_download_is_encoded_and_told(videos, new_index, encoder):
    data = encode_video(moving_picture(60, seed=5), rate=10, container="matroska")
    (videos / "half.mkv").write_bytes(data[: len(data) // 2])
    counts = encode_videos(new_index(), encoder, [videos])
    assert (counts.encoded, counts.failed) == (4, 0)
    ((source, problem),) = new_index().problems.items()
    assert source.path.name == "half.mkv" and problem.startswith("cut off: the file says")
    assert "found up to" in problem and len(contents(new_index())[source][0]) >= 2


def test_shares_together_do_everything(videos, new_index, encoder):
    for i in range(12):
        shutil.copy(videos / "b.mkv", videos / f"{i}.mkv")
    indexes = [new_index() for _ in range(3)]  # all opened before any of them writes
    counts = [
        encode_videos(index, encoder, [videos], share=Share(i, 3)).encoded
        for i, index in enumerate(indexes)
    ]
    assert sum(counts) == 15 and max(counts) < 15
    assert_same(contents(new_index()), expected(sources_of(videos), encoder))


def test_two_processes_that_do_the_same_double_nothing(videos, new_index, encoder):
    first, second = new_index(), new_index()
    encode_videos(first, encoder, [videos], batch_size=2, flush_seconds=0)
    encode_videos(second, encoder, [videos], batch_size=3, flush_seconds=0)
    assert_same(contents(new_index()), expected(sources_of(videos), encoder))


def test_another_encoder_is_refused(videos, new_index, encoder):
    index = new_index()
    encoder.fingerprint = "0" * 64
    with pytest.raises(ValueError, match=r"ffffffffffff.*000000000000"):
        encode_videos(index, encoder, [videos])


def test_kills_at_any_moment_lose_and_double_nothing(videos, new_index, encoder):
    """Also while the parts are compacted."""
    for i in range(9):
        data = encode_video(moving_picture(25 + i, seed=20 + i), rate=10)
        (videos / f"more{i}.mp4").write_bytes(data)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.search.plain"])
    index, rng, kills, between = new_index(), random.Random(0), 0, 0
    wanted = expected(sources_of(videos), encoder)
    for attempt in range(300):
        args = (index.folder, videos, attempt % 3 == 2)
        before = set(index.folder.rglob("*"))
        process = context.Process(target=encode_to_be_killed, args=args)
        process.start()
        # so many files more and a moment: how fast the machine is does not matter
        files = rng.randrange(3)
        while process.is_alive() and len(set(index.folder.rglob("*")) - before) < files:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.02))
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.join()
        there = contents(new_index())
        for source, (spans, vectors) in there.items():
            assert np.array_equal(spans, wanted[source][0][: len(spans)])
            assert np.allclose(vectors, wanted[source][1][: len(spans)], atol=1e-6)
        between += 0 < len(there) < len(wanted)
        if process.exitcode == 0:
            break
    assert kills >= 5 and between >= 2 and process.exitcode == 0
    assert_same(contents(new_index()), wanted)


def test_kills_while_videos_move_lose_no_vector(videos, new_index, encoder):
    """The child cannot encode: what is there is taken over, from run to run."""
    for i in range(9):
        data = encode_video(moving_picture(25 + i, seed=20 + i), rate=10)
        (videos / f"more{i}.mp4").write_bytes(data)
    index, rng, kills = new_index(), random.Random(1), 0
    encode_videos(index, encoder, [videos], batch_size=2, flush_seconds=0)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.search.plain"])
    for attempt in range(24):
        if attempt % 4 == 0:
            for number, source in enumerate(sources_of(videos)):
                source.path.rename(source.path.with_stem(f"{attempt}_{number}"))
        before = set(index.folder.rglob("*"))
        process = context.Process(target=move_to_be_killed, args=(index.folder, videos))
        process.start()
        files = rng.randrange(12)
        while process.is_alive() and len(set(index.folder.rglob("*")) - before) < files:
            time.sleep(0.001)
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        assert len({video.record.digest for video in new_index().videos.values()}) == 12
    assert kills >= 5
    encode_videos(new_index(), encoder, [videos])
    assert_same(contents(new_index()), expected(sources_of(videos), encoder))


def test_the_bar_says_how_fast_it_goes(new_index, encoder, videos, capsys):
    counts = encode_videos(new_index(), encoder, [videos], progress=True)
    number = r"=(\d\S*?), "
    names = ("times as fast as they play", "on each core", "decoding alone")
    pattern = r"videos=3, hours=\S+, " + number.join(names) + r"=(\d[^\s,\]]*)"
    found = [float(x) for x in re.findall(pattern, capsys.readouterr().err)[-1]]
    # What it says of the last video is nearly what is known at the end.
    assert found[1] == pytest.approx(counts.seconds / counts.cpu_seconds, rel=0.2)
    assert found[2] == pytest.approx(counts.seconds / counts.decode_seconds, rel=0.2)
    # Rounded, the two may be alike, as decoding is nearly all of the work here.
    assert found[0] > 0 and found[1] <= found[2]
    assert counts.decode_seconds < counts.cpu_seconds
