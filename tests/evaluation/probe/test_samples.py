import pytest

from tests.evaluation.probe.conftest import samples
from vmm.data.transforms import ClipSettings
from vmm.evaluation.common.labels import Truth
from vmm.evaluation.probe.options import Options
from vmm.evaluation.probe.samples import number, read_parts
from vmm.shards.tars import write_shard

CLIP = ClipSettings(2, 16)


def truths(*names, **more):
    return [Truth(f"{i}", f"{i}", name, **more) for i, name in enumerate(names)]


def test_classes_go_by_their_names_whatever_their_numbers():
    train = [Truth("a", "a", "tea", 7), Truth("b", "b", "milk", 3), Truth("c", "c", "Tea", 9)]
    train += [Truth("d", "d", "milk", 3), Truth("e", "e")]
    found = number(train, [Truth("x", "x", "tea", 0), Truth("y", "y")])
    assert found.names == ["milk", "tea"]
    assert found.train.tolist()[:2] == [1, 0] and found.train.tolist()[4] == -1
    assert found.train.tolist()[2] == 1
    assert found.test.tolist() == [1, -1]


def test_classes_without_names_go_by_their_numbers():
    train = [Truth(f"{i}", f"{i}", None, label) for i, label in enumerate((5, 2, 5, 2))]
    found = number(train, [Truth("x", "x", None, 5)])
    assert found.names == ["class 2", "class 5"]
    assert found.train.tolist() == [1, 0, 1, 0] and found.test.tolist() == [1]


def test_videos_are_numbered_alike_in_both_parts():
    train = [Truth(str(i), str(i), "ab"[i % 2], source=s) for i, s in enumerate("qrsq")]
    found = number(train, [Truth("x", "x", "a", source="r"), Truth("y", "y", "a")])
    assert found.train_videos.tolist() == [0, 1, 2, 0] and found.test_videos.tolist() == [1, 3]


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        (
            "aab",
            "a",
            "1 of 2 classes have fewer than two training clips that can be read, e.g. 'b'",
        ),
        ("aabb", "acc", "1 class of the test clips has no training clip, e.g. 'c'"),
        ("aaa", "a", "all training clips are of the class 'a'"),
    ],
)
def test_what_cannot_be_learnt_is_refused(train, test, said):
    with pytest.raises(ValueError, match=said):
        number(truths(*train), truths(*test))


def test_clips_without_labels_are_refused():
    with pytest.raises(ValueError, match="not one of the training clips has a label"):
        number([Truth("a", "a")], [Truth("b", "b")])
    with pytest.raises(ValueError, match="not one of the test clips has a label"):
        number(truths(*"aabb"), [Truth("b", "b")])


def test_one_file_of_both_splits(tmp_path, films):
    file = tmp_path / "k400.csv"
    rows = ["label,youtube_id,time_start,time_end,split"]
    splits = ["train", "train", "train", "train", "val"]
    rows += [f"{'ab'[i % 2]},{i:011d},0,10,{split}" for i, split in enumerate(splits)]
    file.write_text("\n".join(rows))
    media = tmp_path / "media"
    media.mkdir()
    for i in range(5):
        (media / f"{i:011d}_000000_000010.mp4").write_bytes(b"film")
    options = Options(dataset="k400", annotations=file, media=str(media))
    train, test = read_parts(options, CLIP)
    assert [t.name for t in train.truths] == ["a", "b", "a", "b"] and len(test.truths) == 1
    file.write_text("\n".join(row.rpartition(",")[0] for row in rows))
    with pytest.raises(ValueError, match="does not say which clips are for training"):
        read_parts(options, CLIP)


def test_folders_of_classes(tmp_path):
    for part, name in (("train", "a"), ("train", "b"), ("val", "b")):
        (tmp_path / part / name).mkdir(parents=True)
        (tmp_path / part / name / "1.png").write_bytes(b"picture")
    options = Options(
        dataset="class-folders", train_annotations=tmp_path / "train", annotations=tmp_path / "val"
    )
    train, test = read_parts(options, CLIP)
    assert train.media.kind == test.media.kind == "image"
    found = [(truth.name, truth.label) for part in (train, test) for truth in part.truths]
    assert found == [("a", 0), ("b", 1), ("b", 0)]  # of which the numbers are of no use


def test_films_and_stills_are_not_compared(tmp_path, films):
    stills = [[("0.png", b"x"), ("0.json", b'{"label": "red"}')]]
    write_shard(tmp_path / "stills.tar", stills)
    options = Options(train_shards=str(films / "train.tar"), shards=str(tmp_path / "stills.tar"))
    with pytest.raises(ValueError, match="videos to learn from and images to test on"):
        read_parts(options, CLIP)


def test_shards_without_labels_are_refused(tmp_path, films):
    write_shard(tmp_path / "t.tar", samples(0, 1, data=b"x"))
    options = Options(
        train_shards=str(films / "train.tar"), shards=str(tmp_path / "t.tar"), class_field="kind"
    )
    with pytest.raises(ValueError, match="name the field of the class with --class-field"):
        read_parts(options, CLIP)
