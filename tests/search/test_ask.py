import numpy as np
import pytest

from tests.data.videos import encode_video, moving_picture
from tests.search.plain import PlainEncoder
from tests.search.test_shots import film
from vmm.data.decode import DecodeError
from vmm.search.ask import look_through, plan, plan_shots
from vmm.search.encode import encode_videos
from vmm.search.index import Index
from vmm.search.query import Hit, Searcher
from vmm.search.sources import Source


@pytest.fixture
def searched(videos, new_index):
    index = new_index()
    encode_videos(index, PlainEncoder(), [videos])
    return Searcher(Index.open(index.folder), PlainEncoder())


VECTOR = np.linspace(-1, 1, 24).astype(np.float32)


def test_a_video_outside_is_looked_through_as_if_it_were_indexed(searched, videos):
    hits, spans, cosines, problem = look_through(
        searched, VECTOR, videos / "a.mp4", window=1.0, stride=0.5
    )
    there = searched.curve(VECTOR, Source(videos / "a.mp4"))
    assert np.array_equal(spans, there[0]) and np.allclose(cosines, there[1], atol=1e-5)
    assert hits[0].similarity == pytest.approx(max(cosines)) and isinstance(hits[0], Hit)
    assert problem == "" and len(hits) == 3
    (videos / "a.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match=r"cannot read a\.mp4: empty.*; try another file"):
        look_through(searched, VECTOR, videos / "a.mp4")


def test_a_short_clip_is_not_answered_by_all_of_it(searched, tmp_path):
    """Five seconds, in an index of windows of eight: a quarter each, and a curve of many points."""
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(encode_video(moving_picture(50), rate=10))
    object.__setattr__(searched.index.settings, "window", 8.0)
    hits, spans, cosines, _ = look_through(searched, VECTOR, clip)
    lengths = spans[:, 1] - spans[:, 0]
    assert np.allclose(lengths, 1.25, atol=0.1) and len(spans) == len(cosines) == 24
    assert spans[0, 0] == 0 and spans[-1, 1] == pytest.approx(5, abs=0.05)
    assert len(hits) == 3 and all(hit.end - hit.start < 1.3 for hit in hits)
    spans = look_through(searched, VECTOR, clip, window=0.5).spans
    assert np.allclose(spans[:, 1] - spans[:, 0], 0.5) and len(spans) >= 24


def test_windows_are_those_of_the_index_where_the_video_is_long():
    times = np.arange(36000) / 10
    spans = np.array(plan(times, 8.0, None, None))
    assert np.allclose(spans[:-1, 1] - spans[:-1, 0], 8) and np.allclose(np.diff(spans[:, 0]), 4)
    # No more moments than frames, though a curve would like them.
    assert len(plan(np.arange(5) / 5, 8.0, None, None)) <= 5
    assert len(plan(np.zeros(1), 8.0, None, None)) == 1


@pytest.mark.parametrize("times", [np.arange(200_000) / 10, np.array([0.0, 1e9])])
def test_too_many_moments_are_refused_before_they_are_made(times):
    with pytest.raises(ValueError, match=r"more than 5000 moments of .* s; choose a window of \d+"):
        plan(times, 8.0, 0.5, 0.25)


def test_what_was_read_before_the_damage_is_answered(searched, videos):
    def breaking(video, choose):
        wanted = choose(np.arange(32) / 10)
        for number, part in enumerate(wanted):
            if number == 3:
                raise DecodeError("damaged", "on purpose")
            yield np.full((len(part), 8, 8, 3), number, np.uint8)

    answer = look_through(searched, VECTOR, videos / "a.mp4", window=0.5, decode=breaking)
    assert len(answer.spans) == len(answer.cosines) == 3
    end = answer.spans[-1, 1]
    assert answer.problem == f"only the first {end:.1f} s can be read: damaged: on purpose"
    data = encode_video(moving_picture(60), rate=10, container="matroska")
    (videos / "half.mkv").write_bytes(data[: len(data) // 2])
    answer = look_through(searched, VECTOR, videos / "half.mkv", window=0.5)
    assert len(answer.spans) and "s can be read: cut off: the file says" in answer.problem


def test_an_index_of_shots_cuts_at_shots(new_index, tmp_path):
    pytest.importorskip("scenedetect")
    (tmp_path / "films").mkdir()
    video = tmp_path / "films" / "a.mp4"
    video.write_bytes(film(12, 30, 9, 20))
    index = new_index(window=1.6, stride=1.6, shots=True)
    encode_videos(index, PlainEncoder(), [tmp_path / "films"])
    searcher = Searcher(Index.open(index.folder), PlainEncoder())
    answer = look_through(searcher, VECTOR, video)
    spans, cosines = searcher.curve(VECTOR, Source(video))
    assert len(spans) == 6 and np.array_equal(answer.spans, spans)
    assert np.allclose(answer.cosines, cosines, atol=1e-5)
    # The window is what no shot is longer than; a quarter of a video that is short.
    finer = look_through(searcher, VECTOR, video, window=1.0).spans
    assert {1.2, 4.2, 5.1} <= {round(end, 3) for _, end in finer.tolist()} and len(finer) == 8
    object.__setattr__(searcher.index.settings, "window", 60.0)
    assert max(end - start for start, end in look_through(searcher, VECTOR, video).spans) <= 7.1 / 4
    with pytest.raises(ValueError, match=r"stride 0\.5 is for .*; leave it out"):
        look_through(searcher, VECTOR, video, stride=0.5)
    with pytest.raises(ValueError, match="more than 5000 moments"):
        plan_shots(np.arange(200_000) / 10, [], 8.0, 0.5)
    with pytest.raises(ValueError, match="5001 shots, more than 5000; ask a part"):
        plan_shots(np.arange(200_000) / 10, [float(t) for t in range(1, 5001)], 1e5, 1e5)
    video.write_bytes(b"no film")
    with pytest.raises(ValueError, match=r"cannot read a\.mp4.*; try another file"):
        look_through(searcher, VECTOR, video)
