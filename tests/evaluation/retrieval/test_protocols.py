import json

import pytest

from vmm.data.annotations.registry import DATASETS
from vmm.evaluation.retrieval.protocols import (
    PROTOCOLS,
    published,
    read_protocol,
    read_training_ids,
)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_is_of_a_data_set_that_is_read(name):
    protocol = PROTOCOLS[name]
    dataset = DATASETS[protocol.dataset]
    assert dataset.paragraph == protocol.paragraph
    if protocol.videos is not None:
        assert protocol.videos in dataset.sizes.values()


def test_only_the_test_split_is_kept_of_a_file_with_several(tmp_path):
    videos = [{"video_id": f"video{i}", "split": split, "category": 1, "url": "u",
               "start time": 0, "end time": 1, "id": i}
              for i, split in ((0, "train"), (7, "test"), (8, "validate"))]  # fmt: skip
    sentences = [{"caption": f"c{i}", "video_id": f"video{i}", "sen_id": i} for i in (0, 7, 8, 7)]
    path = tmp_path / "MSRVTT_data.json"
    path.write_text(json.dumps({"videos": videos, "sentences": sentences}))
    (kept,) = read_protocol("msrvtt-full", path)
    assert kept.key == "video7" and kept.captions == ["c7", "c7"]
    ids = tmp_path / "ids.txt"
    ids.write_text("video8\nvideo0\n")
    assert {i.key for i in read_protocol("msrvtt-full", path, ids)} == {"video0", "video8"}
    with pytest.raises(ValueError, match="there is no test set 'msrvtt-2k'"):
        read_protocol("msrvtt-2k", path)


def test_training_ids_come_from_lists_and_from_annotations(tmp_path):
    (tmp_path / "MSRVTT_train.9k.csv").write_text("video_id\nvideo1\nvideo2\n")
    (tmp_path / "train.txt").write_text("a.mp4\nb\n")
    (tmp_path / "t.json").write_text(json.dumps([{"video": "x/é.mp4", "caption": "c"}]))
    assert read_training_ids(tmp_path / "MSRVTT_train.9k.csv") == {"video1", "video2"}
    assert read_training_ids(tmp_path / "train.txt") == {"a", "b"}
    assert read_training_ids(tmp_path / "t.json") == {"é"}
    with pytest.raises(ValueError, match="is not a file"):
        read_training_ids(tmp_path / "gone.json")


def test_published_numbers_say_which_scores_they_are():
    rows = {(row.model, row.scores): row for row in published("MSRVTT-1kA")}
    assert rows["VideoMamba-M 25M", "re-ranked, k=128"][2:] == (35.6, 29.1)
    assert rows["UMT-B 25M", "dual encoder"][2:] == (27.7, 26.2)
    assert rows["PE-core B16", "dual softmax"].v2t is None
    assert published("shards") == []
    assert [row.t2v for row in published("MSVD")][-1] == 58.1
