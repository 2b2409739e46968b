import pytest

from vmm.data.annotations.class_folders import CLASS_FOLDERS
from vmm.data.annotations.registry import DATASETS
from vmm.evaluation.common.class_protocols import CLASS_PROTOCOLS, published_accuracy


@pytest.mark.parametrize("name", CLASS_PROTOCOLS)
def test_every_protocol_is_of_a_data_set_that_is_read_and_beside_published_numbers(name):
    protocol = CLASS_PROTOCOLS[name]
    assert protocol.dataset in (*DATASETS, CLASS_FOLDERS)
    assert protocol.is_regression == (name in ("lvu-like-ratio", "lvu-view-count"))
    assert all(row.value > 0 for row in published_accuracy(protocol.title))
    assert bool(published_accuracy(protocol.title)) == (name != CLASS_FOLDERS)


def test_published_numbers_are_those_of_their_set():
    assert ("VideoMamba-M, 16 frames", 68.3) in published_accuracy("SSv2")
    assert published_accuracy("COIN")[-1] == (
        "VideoMamba-M, masked pretraining, best of 32 and 64 frames", 90.4,
    )  # fmt: skip
    assert ("VideoMamba-S, 224 pixels", 81.2) in published_accuracy("ImageNet")
    assert published_accuracy("LVU view count") == [("VideoMamba-Ti, 32 frames", 2.9)]
    assert published_accuracy("shards, label") == published_accuracy("The year") == []
