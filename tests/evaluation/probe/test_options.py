import pytest

from vmm.evaluation.probe.options import PROBES, Options


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"probes": ["knn", "svm"]}, "must be some of linear, knn, attentive"),
        ({"probes": []}, "must be some of"),
        ({"token_grid": -1}, "must be 0"),
        ({}, "give train_shards"),
        ({"shards": "a.tar", "train_shards": "a.tar"}, "to train on and to test on"),
        ({"shards": "a.tar", "train_media": "b/"}, "as you give those to test on"),
        ({"dataset": "k400", "train_shards": "a.tar"}, "as you give those to test on"),
        ({"dataset": "lvu-view-count"}, "is a number to predict"),
        ({"dataset": "k401"}, "there is no classification set"),
    ],
)
def test_what_no_probe_can_be_made_of_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        Options(**options).check()


def test_all_probes_in_the_usual_order():
    assert Options().wanted == [*PROBES]
    assert Options(probes=["attentive", "linear"]).wanted == ["linear", "attentive"]


def test_where_the_clips_to_train_on_are(tmp_path):
    test = {"annotations": tmp_path / "a.csv", "media": "clips/"}
    assert Options(**test).official_train() == Options(**test).official()
    train = tmp_path / "t.csv"
    assert Options(**test, train_annotations=train).official_train() == (train, "clips/")
    folder = {"annotations": tmp_path, "train_annotations": tmp_path}
    assert Options(**folder).official_train() == (tmp_path, str(tmp_path))
