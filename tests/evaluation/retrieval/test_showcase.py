import io

import numpy as np
import torch
from PIL import Image

from vmm.evaluation.retrieval.showcase import (
    describe_queries,
    even_rows,
    extreme_rows,
    write_showcase,
)


def test_examples_are_evenly_spread_and_best_first():
    torch.manual_seed(0)
    scores = torch.rand(30, 20)
    scores[:, 4] = -torch.inf  # unreadable
    owner = torch.randint(20, (30,))
    relevant = torch.nn.functional.one_hot(owner, 20).bool()
    captions = [f"caption {i}" for i in range(30)]
    keys = [f"shard/{i}" for i in range(20)]
    rows = even_rows(scores, 4)
    assert rows == [0, 9, 19, 29]
    examples = describe_queries(rows, captions, keys, relevant, scores, num_results=20)
    for row, example in zip(rows, examples, strict=True):
        assert example["caption"] == f"caption {row}"
        found = example["results"]
        want = sorted((c for c in range(20) if c != 4), key=lambda c: -scores[row, c])
        assert [result["clip"] for result in found] == want
        assert [result["rank"] for result in found] == list(range(1, 20))
        assert [result["clip"] for result in found if result["right"]] == (
            [] if owner[row] == 4 else [int(owner[row])]
        )
        assert example["rank"] == (None if owner[row] == 4 else 1 + want.index(int(owner[row])))
        assert all(result["key"] == f"shard/{result['clip']}" for result in found)


def test_the_best_and_the_worst_are_found():
    scores = torch.tensor([
        [9.0, 1.0, 2.0, 3.0],  # first by 6
        [5.0, 5.5, 1.0, 2.0],  # first by 0.5
        [4.0, 3.0, 1.0, 2.0],  # last
        [4.0, 3.0, 1.0, 2.0],  # third
        [0.0, 0.0, 0.0, -torch.inf],  # unreadable
    ])  # fmt: skip
    relevant = torch.nn.functional.one_hot(torch.tensor([0, 1, 2, 3, 3]), 4).bool()
    best, worst = extreme_rows(scores, relevant)
    assert (best, worst) == ([0, 1], [2, 3])
    assert extreme_rows(scores, relevant, 1) == ([0], [2])
    captions, keys = list("abcde"), list("wxyz")
    (example,) = describe_queries([2], captions, keys, relevant, scores, 2, with_right=True)
    assert [(r["key"], r["rank"], r["right"]) for r in example["results"]] == [
        ("w", 1, False), ("x", 2, False), ("y", 4, True),
    ]  # fmt: skip
    (found,) = describe_queries([0], captions, keys, relevant, scores, 2, with_right=True)
    assert len(found["results"]) == 2  # it is among them already


def test_fewer_captions_and_clips_than_places():
    scores, relevant = torch.tensor([[0.5]]), torch.ones(1, 1, dtype=torch.bool)
    assert even_rows(scores) == [0]
    (example,) = describe_queries([0], ["only"], ["s/1"], relevant, scores)
    assert example["results"] == [{"clip": 0, "key": "s/1", "rank": 1, "score": 0.5, "right": True}]
    assert example["rank"] == 1
    assert extreme_rows(scores, relevant) == ([], [])


def test_files_of_a_showcase_have_names_of_our_own(tmp_path):
    def example():
        return {
            "caption": "costs $5 & <b>$x_{</b>",  # neither a formula nor markup
            "rank": 2,
            "results": [
                {"clip": clip, "key": "../../evil", "rank": 1, "score": 1.0, "right": clip == 7}
                for clip in (9, 7, 8)
            ],
        }

    media = {7: ("mp4", b"seven"), 8: ("avi", b"eight"), 9: ("mp4", b"9" * 3_000_000)}
    asked = []

    def frames_of(clip):
        asked.append(clip)
        return np.full((4, 16, 16, 3), clip, dtype=np.uint8)

    groups = {"retrieval": [example(), example()], "best": [example()], "worst": []}
    shown = write_showcase(tmp_path, groups, frames_of, media.__getitem__, "title")
    for group, number in (("retrieval", 2), ("best", 1), ("worst", 0)):
        clips = [[result["clip"] for result in e["results"]] for e in shown[group]]
        assert clips == [[None, "clips/000.mp4", None]] * number
    assert (tmp_path / "clips" / "000.mp4").read_bytes() == b"seven"
    assert {p.name for p in tmp_path.rglob("*")} == {
        "clips", "000.mp4", "retrieval.png", "best.png",
    }  # fmt: skip
    assert sorted(asked) == [7, 8, 9]  # each clip is read once
    Image.open(io.BytesIO((tmp_path / "retrieval.png").read_bytes())).verify()
