from pathlib import Path

import numpy as np
import pytest

from tests.search.plain import PlainEncoder
from vmm.search.find import Query, find, query_vector
from vmm.search.parts import Record
from vmm.search.query import Searcher

BASE = [
    ("/films/2024/may/a.mp4", 4.0),
    ("/films/2024/june/[b].mkv", 8.0),
    ("/films/2023/may/c.mp4", 2.0),
    ("/shards/train.tar//films/d.mp4", 6.0),
]


class Encoder(PlainEncoder):
    """A sentence of a number has the vector of that axis; so has a clip, which is a number."""

    def encode_text(self, texts):
        return np.stack([self._axis(text) for text in texts])

    def encode_video(self, clips, **_):
        return self.encode_text(clips)

    def _axis(self, number):
        return np.sign(float(number) + 0.5) * np.eye(24, dtype=np.float32)[abs(int(number))]


@pytest.fixture
def searcher(new_index):
    """Videos with a moment of every second, which have one direction plus some of axis 1."""
    rng = np.random.default_rng(0)
    index = new_index(window=1.0, stride=1.0)
    for name, seconds in BASE:
        spans = [(s, s + 1.0) for s in np.arange(seconds)]
        vectors = rng.standard_normal((len(spans), 24)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        path, _, member = name.partition(".tar/")
        record = Record(
            path + (".tar" if member else ""), member,
            digest=name, seconds=seconds, count=len(spans), done=True,
        )  # fmt: skip
        index.add([record], spans, vectors)
    return Searcher(new_index(window=1.0, stride=1.0), Encoder())


def found(searcher, **query):
    return [
        (hit.source.path.name, hit.start)
        for hit in find(searcher, Query(**{"text": "0", "top": 99, **query}))
    ]


def videos(searcher, **query):
    return sorted({name[0] for name, _ in found(searcher, **query)})


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("/films", "[ac"),
        ("films", "[act"),
        ("films/2024/", "[a"),
        ("./may", "ac"),
        ("/may", ""),
        ("*/may", "ac"),
        ("/films/*/may", "ac"),
        ("/*/may", ""),
        ("*.mp4", "act"),
        ("[b].mkv", "["),
        ("202[!4]", "c"),
        ("202[4-9]", "[a"),
        ("202[9-4]", ""),
        ("?", ""),
        ("film", ""),
        ("/shards/train.tar", "t"),
        ("/films/2024/may/a.mp4", "a"),
        ("/films/2024/may/a.mp", ""),
    ],
)
def test_only_videos_of_a_folder(searcher, folder, expected):
    assert "".join(videos(searcher, folder=folder)) == "".join(sorted(expected))


def test_only_videos_of_a_length(searcher):
    assert videos(searcher, min_duration=4) == ["[", "a", "t"]
    assert videos(searcher, max_duration=4.0) == ["a", "c"]
    assert videos(searcher, min_duration=3, max_duration=4) == ["a"]
    assert videos(searcher, min_duration=3, max_duration=4, folder="2023") == []


def test_only_moments_of_a_time(searcher):
    everything = found(searcher)
    assert len(everything) == 20
    for limits, inside in (
        ({"after": 2}, lambda s: s + 1 > 2),
        ({"before": 2.5}, lambda s: s < 2.5),
        ({"after": 2.5, "before": 3.0}, lambda s: s == 2),
        ({"after": 6, "folder": "2024"}, lambda s: s >= 6),
    ):
        assert found(searcher, **limits) == [(n, s) for n, s in everything if inside(s)]
    # The best of what is left is found, however few of all moments that is.
    assert found(searcher, after=7, top=1) == [(n, s) for n, s in everything if s == 7][:1]


def test_outdated_moments_stay_lost(searcher, new_index):
    index = new_index(window=1.0, stride=1.0)
    index.add([], [], [], removed=[s for s in searcher.sources if "2024" in str(s)])
    again = Searcher(new_index(window=1.0, stride=1.0), Encoder())
    for query in ({}, {"min_duration": 0}, {"folder": "/"})[:2]:
        assert videos(again, **query) == ["c", "t"]
    assert found(again, folder="2024") == []


def test_text_with_a_clip_is_the_mean_of_both(searcher):
    both = query_vector(searcher, Query(text="0", clip="1"))
    assert np.allclose(both, np.eye(24)[0] * 0.5**0.5 + np.eye(24)[1] * 0.5**0.5)
    assert np.linalg.norm(both) == pytest.approx(1)
    alone = [query_vector(searcher, Query(**q)) for q in ({"text": "1"}, {"clip": "1"})]
    assert np.array_equal(*alone)
    with pytest.raises(ValueError, match="say the opposite"):
        query_vector(searcher, Query(text="1", clip="-1"))


def test_equal_scores_come_in_the_order_of_names_and_times(new_index, encoder):
    names, axis = [f"/v/{n}" for n in (3, 1, 4, 0, 2)], np.eye(24, dtype=np.float32)[0]
    for name in names:  # a part for each
        spans = [(s, s + 1.0) for s in (4.0, 0.0, 2.0)]
        new_index().add([Record(name, "", digest="x", count=3, done=True)], spans, [axis] * 3)
    expected = [(name, s) for name in sorted(names) for s in (0.0, 2.0, 4.0)]
    for _ in range(2):
        searcher = Searcher(new_index(), Encoder())
        for top in (1, 2, 7, 15, 40):
            hits = find(searcher, Query(text="0", top=top))
            assert [(str(h.source), h.start) for h in hits] == expected[:top]
        new_index().compact()


def test_ties_at_the_end_of_what_is_sorted_lose_nothing(new_index, encoder):
    """Of one long video, whose moments all overlap: rows beyond the first batch are asked for."""
    axis = np.eye(24, dtype=np.float32)[0]
    spans = [(s / 100, s / 100 + 1.0) for s in range(500)]
    new_index().add([Record("/v/a", "", digest="x", count=500, done=True)], spans, [axis] * 500)
    hits = find(Searcher(new_index(), Encoder()), Query(text="0", top=9))
    assert [h.start for h in hits] == [0.0, 1.0, 2.0, 3.0, 4.0]


@pytest.fixture
def looking(searcher, monkeypatch):
    """A searcher whose head knows the moments by their start; film c is gone."""

    class Model:
        text_encoder = type("Fusing", (), {"fusing": staticmethod(lambda remedy: None)})()
        mixture = staticmethod(lambda similarity, match: similarity + match)

    def clips(source, hits):
        return [] if source.path.name == "c.mp4" else [hit.start for hit in hits]

    monkeypatch.setattr(Encoder, "model", Model, raising=False)
    monkeypatch.setattr(
        Encoder, "score_all",
        lambda self, texts, clips, by: np.array([clips], np.float32), raising=False,
    )  # fmt: skip
    monkeypatch.setattr(searcher, "_clips", clips)
    return searcher


@pytest.mark.parametrize("by", ["mixture", "matching"])
def test_looked_at_again_then_not_readable_then_the_rest(looking, by):
    plain = find(looking, Query(text="0", top=20))
    hits = find(looking, Query(text="0", top=20, rerank=12, rank_by=by))
    seen = [hit for hit in hits if hit.score is not None]
    lost = [hit for hit in plain[:12] if hit.source.path == Path("/films/2023/may/c.mp4")]
    assert len(lost) == 1 or len(lost) == 2
    assert hits == seen + lost + plain[12:]
    assert {(h.source, h.start) for h in seen + lost} == {(h.source, h.start) for h in plain[:12]}
    for hit in seen:
        wanted = hit.start + (hit.similarity if by == "mixture" else 0)
        assert hit.match == hit.start and hit.score == pytest.approx(wanted)
    scores = [hit.score for hit in seen]
    assert scores == sorted(scores, reverse=True)
    assert find(looking, Query(text="0", top=3, rerank=12, rank_by=by)) == hits[:3]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({}, "a sentence, a clip, or both"),
        ({"text": " \n"}, r"text ' \\n' says nothing; give a sentence"),
        ({"text": 3}, "text 3 says nothing"),
        ({"text": "a", "top": 0}, "top 0 must be a whole number of 1 or more"),
        ({"text": "a", "top": True}, "top True must be a whole number"),
        ({"text": "a", "rerank": -1}, "rerank -1 must be a whole number of 0 or more"),
        ({"text": "a", "rerank": 2.0}, r"rerank 2\.0 must be"),
        ({"clip": "a", "rerank": 2}, "rerank 2 compares moments with a sentence; give text too"),
        ({"text": "a", "rank_by": "match", "rerank": 2}, "'match' must be mixture or matching"),
        ({"text": "a", "rank_by": "matching"}, "what rerank looks at; give both"),
        ({"text": "a", "folder": "./"}, r"folder '\./' names nothing"),
        ({"text": "a", "folder": ""}, "folder '' names nothing"),
        ({"text": "a", "folder": "a/../b"}, r"must not have \.\. or \*\*"),
        ({"text": "a", "folder": "a/**"}, r"must not have \.\. or \*\*"),
        ({"text": "a", "after": -1}, "after -1 must be a number of seconds, 0 or more"),
        ({"text": "a", "before": "9"}, "before '9' must be a number"),
        ({"text": "a", "min_duration": float("nan")}, "min_duration nan must be"),
        ({"text": "a", "max_duration": float("inf")}, "max_duration inf must be"),
        ({"text": "a", "after": 5, "before": 4.5}, r"after 5 is above before 4\.5; exchange"),
        ({"text": "a", "min_duration": 3, "max_duration": 2}, "min_duration 3 is above"),
    ],
)
def test_queries_that_say_nothing_or_contradict_themselves(query, message):
    with pytest.raises(ValueError, match=message):
        Query(**query)


def test_an_encoder_that_cannot_look_again_is_told_before_the_search(searcher, monkeypatch):
    class Model:
        class text_encoder:
            @staticmethod
            def fusing(remedy):
                raise ValueError(f"no layer looks at a video; {remedy}")

    monkeypatch.setattr(Encoder, "model", Model, raising=False)
    with pytest.raises(ValueError, match="search without re-ranking"):
        find(searcher, Query(text="0", rerank=3))
