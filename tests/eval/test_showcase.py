import io

import numpy as np
import pytest
import torch
from PIL import Image

from eval.pictures import Query, Strip, retrieval_picture
from eval.showcase import find_examples, write_showcase


def test_examples_are_evenly_spread_and_best_first():
    torch.manual_seed(0)
    scores = torch.rand(30, 20)
    scores[:, 4] = -torch.inf  # unreadable
    owner = torch.randint(20, (30,))
    captions = [f"caption {i}" for i in range(30)]
    keys = [f"shard/{i}" for i in range(20)]
    examples = find_examples(captions, keys, owner, scores, num_queries=4, num_results=20)
    assert [example["caption"] for example in examples] == [
        "caption 0", "caption 9", "caption 19", "caption 29",
    ]  # fmt: skip
    for example in examples:
        row = int(example["caption"].split()[1])
        found = example["results"]
        want = sorted((c for c in range(20) if c != 4), key=lambda c: -scores[row, c])
        assert [result["clip"] for result in found] == want
        assert [result["clip"] for result in found if result["right"]] == (
            [] if owner[row] == 4 else [int(owner[row])]
        )
        assert example["rank"] == (None if owner[row] == 4 else 1 + want.index(int(owner[row])))
        assert all(result["key"] == f"shard/{result['clip']}" for result in found)


def test_fewer_captions_and_clips_than_places():
    examples = find_examples(["only"], ["s/1"], torch.tensor([0]), torch.tensor([[0.5]]))
    assert len(examples) == 1
    assert examples[0]["results"] == [{"clip": 0, "key": "s/1", "score": 0.5, "right": True}]
    assert examples[0]["rank"] == 1


def test_files_of_a_showcase_have_names_of_our_own(tmp_path):
    examples = [
        {
            "caption": "costs $5 & <b>$x_{</b>",  # neither a formula nor markup
            "rank": 2,
            "results": [
                {"clip": clip, "key": "../../evil", "score": 1.0, "right": clip == 7}
                for clip in (9, 7, 8)
            ],
        }
    ]
    media = {7: ("mp4", b"seven"), 8: ("avi", b"eight"), 9: ("mp4", b"9" * 3_000_000)}
    asked = []

    def frames_of(clip):
        asked.append(clip)
        return np.full((4, 16, 16, 3), clip, dtype=np.uint8)

    (example,) = write_showcase(tmp_path, examples * 2, frames_of, media.__getitem__, "title")[:1]
    assert [result["clip"] for result in example["results"]] == [None, "clips/000.mp4", None]
    assert (tmp_path / "clips" / "000.mp4").read_bytes() == b"seven"
    assert {p.name for p in tmp_path.rglob("*")} == {"clips", "000.mp4", "retrieval.png"}
    assert sorted(asked) == [7, 8, 9]  # each clip is read once
    Image.open(io.BytesIO((tmp_path / "retrieval.png").read_bytes())).verify()


@pytest.mark.parametrize("counts", [(3, 3), (1, 3), (0, 2)])
def test_the_picture_marks_the_right_clip(counts):
    frames = np.random.default_rng(0).integers(0, 255, (8, 24, 32, 3), dtype=np.uint8)
    queries = [
        Query(
            f"query {i}",
            "right clip at rank 2",
            [Strip(frames, f"{j + 1}.", right=j == 1) for j in range(count)],
        )
        for i, count in enumerate(counts)
    ]
    figure = retrieval_picture(queries, "title")
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert sum(title.startswith("✓") for title in titles) == sum(count > 1 for count in counts)
    # Frames stand side by side, in order.
    image = figure.axes[max(counts) if counts[0] == 0 else 0].images[0].get_array()
    assert np.array_equal(image[:, :32], frames[0])
    assert np.array_equal(image[:, -32:], frames[-1])
