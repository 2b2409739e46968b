import numpy as np
import pytest

from tests.data.videos import encode_video
from vmm.data.decode import DecodeError
from vmm.search import shots
from vmm.search.encode import encode_videos
from vmm.search.shots import find_cuts, split
from vmm.search.sources import Source


def film(*lengths, rate=10, **options):
    """A film of still shots of different colours, with so many frames each."""
    colours = [(200, 30, 30), (20, 180, 60), (40, 40, 220), (230, 230, 40), (10, 10, 10)]
    noise = np.random.default_rng(0).integers(0, 6, (sum(lengths), 48, 64, 3))
    plain = [np.full((n, 48, 64, 3), c) for n, c in zip(lengths, colours, strict=False)]
    frames = np.clip(np.concatenate(plain) + noise, 0, 255).astype(np.uint8)
    return encode_video(frames, rate=rate, **options)


def test_cuts_are_where_the_picture_changes(tmp_path):
    data = film(12, 20, 9, 15)
    (tmp_path / "film.mp4").write_bytes(data)
    for video in (data, tmp_path / "film.mp4"):
        assert find_cuts(video) == pytest.approx([1.2, 3.2, 4.1])
    assert find_cuts(film(15)) == []
    assert find_cuts(film(1)) == []


def test_a_shot_begins_within_the_film(monkeypatch):
    monkeypatch.setattr(shots, "_detected", lambda frames, step: [len(list(frames)), 3, 0, 3])
    assert find_cuts(film(12)) == pytest.approx([0.3])


def test_of_a_damaged_film_the_cuts_before_that_are_found():
    data = film(20, 20, 20, 20, g="10", bf="0")
    assert find_cuts(data) == pytest.approx([2.0, 4.0, 6.0])
    start = data.index(b"mdat")
    middle = start + (data.index(b"moov") - start) * 2 // 3
    damaged = data[:middle] + b"\xff" * 400 + data[middle + 400 :]
    assert find_cuts(damaged) in ([2.0], [2.0, 4.0])
    with pytest.raises(DecodeError):
        find_cuts(b"no film at all")


def test_moments_cover_the_film_and_long_shots_are_cut_evenly():
    assert split(0.0, [], 0.4, 8.0) == [(0.0, 0.4)]
    spans = split(0.5, [2.0, 12.0], 12.5, 4.0)
    assert spans[0] == (0.5, 2.0) and spans[-1] == (12.0, 12.5)
    assert [end - start for start, end in spans[1:-1]] == pytest.approx([10 / 3] * 3)
    assert [end for _, end in spans[:-1]] == [start for start, _ in spans[1:]]
    assert len(split(0.0, [8.0], 24.0, 8.0)) == 3  # whole pieces stay whole


def test_an_index_by_shots(new_index, encoder, tmp_path, monkeypatch):
    folder = tmp_path / "films"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(film(12, 30, 9))
    index = new_index(window=2.0, stride=2.0, shots=True)
    encode_videos(index, encoder, [folder], batch_size=1, flush_seconds=0)
    index = new_index(window=2.0, stride=2.0, shots=True)
    spans, whole = index.moments_of(Source(folder / "a.mp4"))
    assert spans.ravel().tolist() == pytest.approx([0, 1.2, 1.2, 2.7, 2.7, 4.2, 4.2, 5.1])

    # Stopped in the middle, it goes on with the same shots.
    other = new_index("other", window=2.0, stride=2.0, shots=True)
    encode, left = encoder.encode_video, iter([1, 1])

    def interrupted(clips, **_):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return encode(clips)

    with monkeypatch.context() as patch:
        patch.setattr(encoder, "encode_video", interrupted)
        with pytest.raises(KeyboardInterrupt):
            encode_videos(other, encoder, [folder], batch_size=1, flush_seconds=0)
    other.reload()
    assert other.num_moments == 2
    encode_videos(other, encoder, [folder], batch_size=1, flush_seconds=0)
    other.reload()
    again, vectors = other.moments_of(Source(folder / "a.mp4"))
    assert np.array_equal(again, spans) and np.allclose(vectors, whole, atol=1e-6)
