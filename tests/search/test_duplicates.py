from pathlib import Path

import numpy as np
import pytest

from vmm.search.duplicates import find_duplicates
from vmm.search.parts import Record
from vmm.search.sources import Source

RNG = np.random.default_rng(0)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def filled(index, videos, digests=None):
    """Add {name: (n, E) vectors}, a part for each."""
    for name, vectors in videos.items():
        rows = unit(np.asarray(vectors, np.float32))
        times = [(float(i), i + 1.0) for i in range(len(rows))]
        digest = (digests or {}).get(name, f"content of {name}")
        record = Record(f"/v/{name}", "", digest=digest, count=len(rows), done=True)
        index.add([record], times, list(rows))
    index.reload()
    return index


def brute_force(videos, threshold):
    """{names: (share, similarity)} from the definition."""
    found = {}
    names = sorted(videos)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            cosines = unit(videos[a]) @ unit(videos[b]).T
            alike = cosines >= threshold
            share = max(alike.any(1).mean(), alike.any(0).mean())
            if alike.any() and share >= 0.5:
                found[a, b] = share, cosines[alike].mean()
    return found


@pytest.mark.parametrize("width", [24, 200])
@pytest.mark.parametrize("rows", [1, 16, 10_000])
def test_equals_brute_force(new_index, width, rows):
    centres = RNG.standard_normal((12, width)).astype(np.float32)
    videos = {
        f"{i:02d}": (
            centres[RNG.integers(0, 12, n)] + 0.25 * RNG.standard_normal((n, width))
        ).astype(np.float32)
        for i, n in enumerate(RNG.integers(1, 12, 40))
    }
    videos["90"] = videos["03"] + 0.05 * RNG.standard_normal(videos["03"].shape)
    videos["91"] = np.concatenate([videos["05"][:3], RNG.standard_normal((2, width))])
    videos["92"] = np.repeat(videos["07"][:1], 5, axis=0)  # many of many: computed in full
    index = filled(new_index(embedding_dim=width), videos)
    wanted = brute_force(videos, 0.9)
    assert 5 < len(wanted) < 700
    pairs, total = find_duplicates(index, 0.9, rows=rows)
    found = {(p.first.path.name, p.second.path.name): (p.share, p.similarity) for p in pairs}
    assert total == len(pairs) and found.keys() == wanted.keys()
    for names, numbers in wanted.items():
        assert found[names] == pytest.approx(numbers, abs=1e-4)
    order = [(-p.share, -p.similarity) for p in pairs]
    assert order == sorted(order)
    few, same = find_duplicates(index, 0.9, rows=rows, most=3)
    assert few == pairs[:3] and same == total


def test_directions_that_are_left_out_neither_hide_nor_add_a_pair(new_index):
    """Noise in all 200 directions, of which 63 are kept: what is left out decides."""
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((12, 200))
    videos = {
        f"{i:02d}": centres[[i % 12] * 2] + 0.36 * rng.standard_normal((2, 200)) for i in range(150)
    }
    videos |= {f"copy of {n}": v + 0.05 * rng.standard_normal(v.shape) for n, v in videos.items()}
    index = filled(new_index(embedding_dim=200), videos)
    for threshold in (0.885, 0.96):
        wanted = brute_force(videos, threshold)
        assert len(wanted) >= 150
        pairs, _ = find_duplicates(index, threshold)
        assert {(p.first.path.name, p.second.path.name) for p in pairs} == wanted.keys()


def test_videos_without_a_digest_are_not_the_same_bytes(new_index):
    a = RNG.standard_normal((4, 24))
    index = filled(new_index(), {"a": a, "b": a}, {"a": "", "b": ""})
    ((pair,), _) = find_duplicates(index)
    assert pair.share == 1 and not pair.same_bytes


def test_copies_and_moments_that_count(new_index):
    a = RNG.standard_normal((4, 24))
    videos = {"a": a, "copy": a, "cut": a[:2], "other": RNG.standard_normal((3, 24))}
    index = filled(new_index(), videos, {"a": "same", "copy": "same"})
    pairs, _ = find_duplicates(index)
    told = [(p.first.path.name, p.second.path.name, p.share, p.same_bytes) for p in pairs]
    assert ("a", "copy", 1.0, True) in told and ("a", "cut", 1.0, False) in told
    assert len(told) == 3 and all(p.similarity == pytest.approx(1) for p in pairs)

    # Outdated moments are none, and moments of one video are no duplicates of each other.
    index.add([], [], [], removed=[Source(Path("/v/copy")), Source(Path("/v/cut"))])
    index.reload()
    assert find_duplicates(index) == ([], 0)


def test_nothing_and_wrong_thresholds(new_index):
    assert find_duplicates(new_index()) == ([], 0)
    for threshold in (0, -1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"threshold .* must be above 0 and at most 1"):
            find_duplicates(new_index(), threshold)
