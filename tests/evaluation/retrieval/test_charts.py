import pytest
import torch

from vmm.evaluation.retrieval.charts import rank_histogram, recall_curves, similarity_map
from vmm.evaluation.retrieval.results import RetrievalResult
from vmm.metrics import hit_probability


def test_recall_curves_rise_from_r1_to_everything(result):
    content = RetrievalResult.read(result)
    figure = recall_curves([("a", content)], "t2v")
    line = figure.axes[0].lines[0]
    recalls = dict(zip(line.get_xdata(), line.get_ydata(), strict=True))
    assert recalls[1] == pytest.approx(62.5) and recalls[3] == pytest.approx(75)
    assert recalls[10] == pytest.approx(87.5) and recalls[256] == 100
    content.queries["dual"]["v2t"]["better"] = "x"
    with pytest.raises(ValueError, match="holds no v2t ranks of dual"):
        content.ranks("dual", "v2t")


def test_chance_reaches_the_whole_gallery_as_the_curves_do(result):
    (axes,) = recall_curves([("model", RetrievalResult.read(result))], "t2v").axes
    *curves, chance = axes.get_lines()
    ends = {(line.get_xdata()[-1], line.get_ydata()[-1]) for line in [*curves, chance]}
    assert len(ends) == 1 and ends.pop()[1] == 100


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


def test_bars_say_of_equal_scores_what_the_table_says(result):
    content = RetrievalResult.read(result)
    # Half of what is first shares its score with one wrong candidate: found first every other time.
    content.queries["dual"]["t2v"] |= {"tied": [2, 1, 1, 2, 1, 1, 1, 1]}
    ranks = content.ranks("dual", "t2v")
    figure = rank_histogram(content, "t2v")
    assert figure.axes[0].get_legend() is None and len(figure.legends) == 1  # not over the bars
    bars = {
        name.get_text(): bar.get_height()
        for name, bar in zip(
            figure.axes[0].get_xticklabels(), figure.axes[0].containers[0], strict=True
        )
    }
    assert bars["1"] == pytest.approx(100 * hit_probability(ranks, 1).mean().item())
    assert bars["1"] == pytest.approx(50) and bars["2-5"] == pytest.approx(25)
    assert sum(bars.values()) == pytest.approx(100)


def test_no_bars_for_ranks_that_the_gallery_does_not_have(result):
    content = RetrievalResult.read(result)
    for scores in content.kinds():
        content.queries[scores]["t2v"] |= {"candidates": 8, "better": [0] * 8}
    labels = rank_histogram(content, "t2v").axes[0].get_xticklabels()
    assert [label.get_text() for label in labels] == ["1", "2-5", "later"]
