import numpy as np
import pytest

from vmm.evaluation.retrieval.pictures import Query, Strip, retrieval_picture


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
