import numpy as np

from vmm.shards.shard_statistics import inspect_shard, report, summary


def test_a_shard_that_cannot_be_opened_is_told(tmp_path):
    content = inspect_shard(str(tmp_path / "gone.tar"))
    assert content.damage.startswith("cannot be opened")
    assert report([content], unread=2).samples["count"] == 0
    assert report([content], unread=2).shards["unread"] == 2


def test_summary():
    assert summary([]) == {"count": 0}
    one = summary([5, 5, 5])
    assert one["histogram"] == {"edges": [5, 6], "counts": [3]} and one["mean"] == 5
    values = np.random.default_rng(0).integers(0, 1000, 501).astype(float)
    found = summary(values.tolist())
    for share, name in ((5, "p5"), (50, "median"), (95, "p95")):
        assert found[name] == np.percentile(values, share, method="inverted_cdf")
    counts, edges = np.histogram(values, 20)
    assert found["histogram"]["counts"] == counts.tolist()
    assert np.allclose(found["histogram"]["edges"], edges)
    assert found["total"] == values.sum() and found["max"] == values.max()
