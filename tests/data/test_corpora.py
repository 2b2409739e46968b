from collections import Counter

import pytest

from vmm.data.corpora import Corpus, Mixture, open_corpora, patterns_of
from vmm.data.shards import ShardSet


@pytest.fixture
def two_corpora(tools, tmp_path):
    """Corpora a (codes 0-9) and b (10-15), with equal shard names and equal keys."""
    for name, codes in (("a", range(10)), ("b", range(10, 16))):
        members = [
            (f"{row:04d}.{extension.rpartition('.')[2]}", content)
            for row, code in enumerate(codes)
            for extension, content in tools.coded_sample(code)[:2]
        ]
        tools.write_tar(tmp_path / name / "00000.tar", members)
    return tmp_path


def mixture(folder, seed=0, **weights):
    corpora = {name: Corpus(f"{folder}/{name}", weight) for name, weight in weights.items()}
    return open_corpora({"video": corpora}, seed)["video"]


def test_weights_are_passes_over_a_corpus(two_corpora):
    source = mixture(two_corpora, a=1.0, b=2.5)
    assert len(source) == 10 + 15 and source.size == 16
    two_passes = [source.read(source.locate(p)) for p in range(2 * len(source))]
    seen = Counter(raw.key for raw in two_passes)
    assert seen == {
        **{f"a/00000/{row:04d}": 2 for row in range(10)},
        **{f"b/00000/{row:04d}": 5 for row in range(6)},
    }
    assert {raw.captions[0] for raw in two_passes} == {f"video {code}" for code in range(16)}


def test_keys_and_numbers_are_unique_over_corpora_and_media(two_corpora, tools):
    tools.write_tar(two_corpora / "c/00000.tar", tools.coded_sample(0, "image"))
    videos = {name: Corpus(f"{two_corpora}/{name}") for name in ("a", "b")}
    sources = open_corpora({"video": videos, "image": f"{two_corpora}/c"}, seed=0)
    keys = [source.read(source.locate(p)).key for source in sources.values() for p in range(
        len(source))]  # fmt: skip
    assert len(keys) == len(set(keys)) == 17
    numbers = set()
    for position in range(16):
        place = sources["video"].locate(position)
        numbers.add(sources["video"].first(place.corpus) + sources["video"].read(place).number)
    assert numbers == set(range(16))


def test_a_replacement_is_of_the_same_corpus(two_corpora):
    source = mixture(two_corpora, a=1.0, b=1.0)
    for position in range(16):
        place = source.locate(position)
        others = {source.another(place, draw) for draw in range(100)}
        assert {other.corpus for other in others} == {place.corpus}
        assert len(others) == len(source.sets[place.corpus])


def test_the_identity_changes_with_the_data_and_the_weights(two_corpora, tools):
    first = mixture(two_corpora, a=1.0, b=1.0).identity()
    assert mixture(two_corpora, a=1.0, b=1.0).identity() == first
    assert mixture(two_corpora, a=1.0, b=2.0).identity() != first
    moved = two_corpora.rename(two_corpora.with_name("moved"))
    assert mixture(moved, a=1.0, b=1.0).identity() == first
    # As many samples as before, of other names.
    tools.write_tar(moved / "b/00000.tar", [m for c in range(6) for m in tools.coded_sample(c)])
    same_names = mixture(moved, a=1.0, b=1.0)
    assert len(same_names) == 16 and same_names.identity() != first


def test_one_corpus_needs_no_name(coded_shards):
    pattern = f"{coded_shards}/video-*.tar"
    alone = open_corpora({"video": pattern}, seed=5)["video"]
    assert alone.read(alone.locate(0)).key.startswith("video-00")
    listed = open_corpora({"video": [pattern]}, seed=5)["video"]
    places = [alone.locate(position) for position in range(80)]
    assert [listed.locate(position) for position in range(80)] == places
    assert patterns_of({"a": Corpus("x"), "b": Corpus(["y", "z"])}) == ["x", "y", "z"]


def test_a_shard_belongs_to_one_corpus(coded_shards):
    videos = ShardSet(f"{coded_shards}/video-*.tar", "video")
    part = ShardSet(f"{coded_shards}/video-001.tar", "video")
    with pytest.raises(ValueError, match=r"'x' and 'y' both have the shard .*video-001\.tar"):
        Mixture({"x": videos, "y": part})


@pytest.mark.parametrize("weight", [0, -1.0, float("inf"), float("nan")])
def test_impossible_weights_are_refused(weight):
    with pytest.raises(ValueError, match="weight"):
        Corpus("a.tar", weight)
