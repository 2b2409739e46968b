import pytest
import torch

from vmm.evaluation.common.pictures import png
from vmm.evaluation.retrieval.charts import (
    Curve,
    curves_picture,
    read_curves,
    recall_curves,
    similarity_map,
)
from vmm.evaluation.retrieval.results import RetrievalResult


def test_recall_curves_rise_from_r1_to_everything(result):
    content = RetrievalResult.read(result)
    figure = recall_curves([("a", content)])
    line = figure.axes[0].lines[0]
    recalls = dict(zip(line.get_xdata(), line.get_ydata(), strict=True))
    assert recalls[1] == pytest.approx(62.5) and recalls[3] == pytest.approx(75)
    assert recalls[10] == pytest.approx(87.5) and recalls[256] == 100
    content.queries["dual"]["v2t"]["better"] = "x"
    with pytest.raises(ValueError, match="holds no v2t ranks of dual"):
        content.ranks("dual", "v2t")


def test_the_similarity_map_has_the_right_pairs_on_its_diagonal():
    scores = torch.zeros(200, 100)
    owner = torch.arange(200) // 2
    scores[torch.arange(200), owner] = 1
    relevant = torch.zeros(200, 100, dtype=torch.bool)
    relevant[torch.arange(200), owner] = True
    scores[:, 0] = -torch.inf  # unreadable
    drawn = similarity_map(scores, relevant).axes[0].images[0].get_array()
    assert drawn.shape == (64, 64) and drawn.mask[:, 0].all()
    assert (drawn.diagonal()[1:] == 1).all() and drawn[1:, 1:].sum() == 63


def test_curves_are_read_by_name(run):
    curves = {curve.name: curve for curve in read_curves(run / "metrics.csv")}
    assert curves.keys() == {"train/loss", "train/vtc", "val/t2v_recall_1"}
    assert curves["train/loss"].steps == list(range(0, 100, 10))  # NaN is left out
    assert curves["val/t2v_recall_1"].values == [42.0]
    assert png(curves_picture(list(curves.values()))).startswith(b"\x89PNG")


def test_a_single_point_can_be_drawn():
    assert png(curves_picture([Curve("train/$loss", [0], [1.0])])).startswith(b"\x89PNG")
