import hashlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from vmm.data.clips import load_frames
from vmm.data.schema import RawSample
from vmm.data.transforms import eval_transform
from vmm.export.encoder import VideoTextEncoder
from vmm.export.frames import prepared
from vmm.search.encode import encode_videos
from vmm.search.index import Index, Settings
from vmm.search.parts import Record
from vmm.search.query import Searcher, timestamp
from vmm.search.sources import Source


def random_index(new_index, videos=40, moments=30, seed=0):
    """An index of random directions in two parts, some of them outdated; all rows in order."""
    rng = np.random.default_rng(seed)
    index, table = new_index(), {}
    for half in range(2):
        records, spans, vectors = [], [], []
        for video in range(half * videos // 4, videos if half else videos // 2):
            count = int(rng.integers(1, moments))
            new = rng.standard_normal((count, 24)).astype(np.float32)
            new /= np.linalg.norm(new, axis=1, keepdims=True)
            name = f"/v/{video}"
            records.append(Record(name, "", digest=f"{half}", count=count, done=True))
            times = [(i * 0.5, i * 0.5 + 1) for i in range(count)]
            spans += times
            vectors += list(new)
            table[name] = (times, new)
        index.add(records, spans, vectors)
    return new_index(), table


def by_definition(table, vector, top):
    """The best moment, then the best of those that overlap none before, and so on."""
    left = [
        (float(v @ vector), name, span)
        for name, (spans, vectors) in table.items()
        for span, v in zip(spans, vectors, strict=True)
    ]
    chosen = []
    while left and len(chosen) < top:
        best = max(left)
        chosen.append(best)
        _, name, (start, end) = best
        left = [
            other
            for other in left
            if other[1] != name or other[2][1] <= start or other[2][0] >= end
        ]
    return chosen


@pytest.mark.parametrize("top", [1, 3, 20, 10_000])
def test_results_are_those_of_the_definition(new_index, encoder, top):
    index, table = random_index(new_index)
    searcher = Searcher(index, encoder)
    rng = np.random.default_rng(1)
    for _ in range(3):
        vector = rng.standard_normal(24).astype(np.float32)
        expected = by_definition(table, vector, top)
        hits = searcher.search(vector, top)
        assert [(str(h.source), (h.start, h.end)) for h in hits] == [e[1:] for e in expected]
        assert np.allclose([h.similarity for h in hits], [e[0] for e in expected], atol=1e-5)
    assert len(hits) == len(expected)


def test_a_thousand_random_queries_find_what_comparing_with_everything_finds(new_index, encoder):
    """All queries at once, in float64: of all moments the best, without those it overlaps, ..."""
    index, table = random_index(new_index)
    searcher, top = Searcher(index, encoder), 10
    queries = np.random.default_rng(2).standard_normal((1000, 24)).astype(np.float32)
    names = np.concatenate([[name] * len(spans) for name, (spans, _) in table.items()])
    spans = np.concatenate([spans for spans, _ in table.values()])
    vectors = np.concatenate([vectors for _, vectors in table.values()])
    scores = queries.astype(np.float64) @ vectors.astype(np.float64).T
    overlap = (spans[:, None, 0] < spans[None, :, 1]) & (spans[None, :, 0] < spans[:, None, 1])
    overlap &= names[:, None] == names[None, :]
    every = np.arange(len(queries))
    found = [searcher.search(query, top) for query in queries]
    for rank in range(top):
        best = scores.argmax(1)
        values = scores[every, best]
        hits = [hits[rank] for hits in found]
        assert np.allclose([hit.similarity for hit in hits], values, atol=1e-5)
        places = [(str(hit.source), hit.start, hit.end) for hit in hits]
        expected = list(zip(names[best], *spans[best].T, strict=True))
        scores[every, best] = -np.inf
        told_apart = values - scores.max(1) > 1e-5  # others may come in either order
        assert [p for p, sure in zip(places, told_apart, strict=True) if sure] == [
            e for e, sure in zip(expected, told_apart, strict=True) if sure
        ]
        assert told_apart.mean() > 0.99
        scores[overlap[best]] = -np.inf


def test_equal_moments_come_in_the_order_of_their_names(new_index, encoder):
    index, rng = new_index(), np.random.default_rng(5)
    copied = rng.standard_normal(24)
    for name in rng.permutation(40):
        rows = rng.standard_normal((1 + int(name) % 5, 24))
        rows[-1] = copied  # in another place of each part
        record = Record(f"/v/{name:02d}", "", digest=str(name), count=len(rows), done=True)
        index.add([record], [(float(i), i + 1.0) for i in range(len(rows))], list(rows))
    hits = Searcher(new_index(), encoder).search(copied.astype(np.float32), 40)
    assert [hit.source.path.name for hit in hits] == [f"{name:02d}" for name in range(40)]
    assert len({hit.similarity for hit in hits}) == 1


def test_the_curve_is_the_whole_video_in_order(new_index, encoder):
    index, table = random_index(new_index)
    vector = np.random.default_rng(1).standard_normal(24).astype(np.float32)
    spans, cosines = Searcher(index, encoder).curve(vector, Source(Path("/v/30")))
    assert spans.tolist() == [list(span) for span in table["/v/30"][0]]
    assert np.allclose(cosines, table["/v/30"][1] @ vector, atol=1e-5)


def checksum(content):
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(content):
        digest.update(content[name].tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_vectors_that_are_no_numbers_are_refused_with_their_part(new_index, encoder, value):
    index = random_index(new_index)[0]
    searcher = Searcher(index, encoder)
    vector = np.ones(24, np.float32)
    with pytest.raises(ValueError, match="vector to search with holds NaN or infinity"):
        searcher.search(np.where(np.arange(24) == 5, value, vector))
    part = index.parts[1]
    content = load_file(part)
    content["vectors"][3, 7] = value
    save_file(content, part, {"checksum": checksum(content)})
    searcher = Searcher(new_index(), encoder)
    for use in (searcher.search, lambda v: searcher.curve(v, Source(Path("/v/0")))):
        with pytest.raises(ValueError, match=rf"{part.name} is damaged: a vector in it holds NaN"):
            use(vector)
    wrong = [line for line in new_index().verify() if "damaged" in line]
    assert len(wrong) == 1 and part.name in wrong[0] and "NaN or infinity" in wrong[0]


def test_an_empty_index_finds_nothing(new_index, encoder):
    assert Searcher(new_index(), encoder).search(np.ones(24, np.float32)) == []


def test_times_for_people():
    assert [timestamp(s) for s in (0, 59.96, 61.24, 3599.94, 3725.5)] == [
        *("00:00.0", "01:00.0", "01:01.2", "59:59.9", "1:02:05.5")
    ]


@pytest.fixture(scope="module")
def real(encoder_folder):
    return VideoTextEncoder.from_pretrained(encoder_folder)


@pytest.fixture
def searched(videos, real, tmp_path):
    settings = Settings(real.fingerprint, str(real.folder), real.embedding_dim, 1.0, 0.5)
    index = Index.create(tmp_path / "real", settings)
    encode_videos(index, real, [videos])
    return Searcher(Index.open(index.folder), real)


def test_a_short_video_has_the_vector_of_the_whole_file(searched, videos):
    vector = searched.video_vector(videos / "b.mkv")
    (best,) = searched.search(vector, 1)
    assert best.source.path.name == "b.mkv" and np.isclose(best.similarity, 1, atol=1e-5)


@pytest.mark.parametrize("by", ["mixture", "matching"])
def test_reranking_gives_the_scores_of_the_moments_themselves(searched, real, by):
    hits = searched.search(searched.text_vector("a red circle"), 6)
    ranked = searched.rerank("a red circle", hits, by)
    assert {(h.source, h.start) for h in ranked} == {(h.source, h.start) for h in hits}
    scores = [h.score for h in ranked]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) > 3
    for hit in ranked:
        data = hit.source.path.read_bytes()
        part = RawSample("", 0, "", data, [], {"start": hit.start, "end": hit.end})
        clip = prepared(eval_transform(load_frames(part, "video", real.clip), real.clip), real.clip)
        alone = real.score(["a red circle"], [clip], by="matching")
        assert np.isclose(real.score(["a red circle"], [clip], by=by), hit.score, atol=1e-4)
        assert np.isclose(alone, hit.match, atol=1e-4)


def test_the_mixture_and_matching_alone_are_two_orders(searched, real, monkeypatch):
    hits = searched.search(searched.text_vector("a red circle"), 6)
    monkeypatch.setattr(real.model, "match_weight", 0.0)  # then the vectors alone decide
    mixed = searched.rerank("a red circle", hits)
    assert [h.start for h in mixed] == [h.start for h in hits]
    alone = searched.rerank("a red circle", hits, "matching")
    assert [(h.source, h.start) for h in alone] != [(h.source, h.start) for h in mixed]


def test_moments_that_cannot_be_read_any_more_come_last(searched, videos):
    hits = searched.search(searched.text_vector("a red circle"), 6)
    (videos / "deep" / "c.AVI").unlink()
    ranked = searched.rerank("a red circle", hits)
    missing = [hit.source.path.name == "c.AVI" for hit in ranked]
    assert missing == sorted(missing) and any(missing) and len(ranked) == len(hits)
    assert [hit.match is None for hit in ranked] == missing


def test_places_are_paths_or_strings(searched, encoder_folder, tmp_path):
    there = searched.index.folder
    for index, encoder in ((str(there), None), (str(there), encoder_folder), (there, None)):
        opened = Searcher.open(index, encoder)
        assert opened.sources == searched.sources
        vector = opened.text_vector("a red circle")
        assert np.array_equal(opened.similarities(vector), searched.similarities(vector))
    with pytest.raises(ValueError, match=r"has no index\.json"):
        Searcher.open(str(tmp_path))


def test_another_encoder_is_refused(searched, another_encoder_folder):
    with pytest.raises(ValueError, match="cannot be compared"):
        Searcher.open(searched.index.folder, str(another_encoder_folder))
