import numpy as np

from vmm.evaluation.common.pictures import png
from vmm.evaluation.grounding.page import example, recall_chart

QUERY = {"text": "a", "key": "k", "video": 0, "iou": 0.5, "curve": [0.1, 0.4, 0.2],
         "seconds": [0, 1, 2, 3], "moments": [[1, 2]], "windows": [[1.0, 3.0, 0.2]]}  # fmt: skip


def test_the_chart_has_a_line_of_every_method():
    recall = {"iou": [0.3, 0.5], "methods": {"head": [60, 40], "curve": [50, 20], "whole": [9, 1]}}
    (ax,) = recall_chart(recall).axes
    assert [list(line.get_ydata()) for line in ax.lines] == [[60, 40], [50, 20], [9, 1]]
    labels = [line.get_label() for line in ax.lines]
    assert labels == ["trained head", "relevance curve", "whole video, the longest window"]


def test_an_example_shows_truth_and_guess_over_the_same_seconds():
    figure = example(QUERY, np.zeros((4, 12, 3), np.uint8))
    bars = [(bar.get_x(), bar.get_width(), bar.get_y() > 0.5) for bar in figure.axes[2].patches]
    assert bars == [(1, 1, False), (1, 2, True)]
    assert figure.axes[1].get_xlim() == (0, 3) and len(figure.axes[0].images) == 1
    assert png(example(QUERY, None)).startswith(b"\x89PNG")
