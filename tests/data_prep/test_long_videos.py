import io
import json
import tarfile

import av
import pytest

from data_prep.long_videos import FilmArguments, main
from vmm.data.annotations.registry import read_annotations

SMALL = ["--train", "3", "--val", "1", "--test", "3", "--long", "3", "--event-frames", "2",
         "--image-size", "32", "--workers", "1"]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "films"
    assert main(["--out", str(folder), *SMALL]) == 0
    return folder


def members(shard):
    with tarfile.open(shard) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def test_a_shard_holds_a_group_of_films(made):
    assert [len(members(made / f"train-{i:06d}.tar")) for i in range(3)] == [18, 18, 9]
    shard = members(made / "long-000000.tar")
    assert len(shard) == 36
    with av.open(io.BytesIO(shard["long000003.mp4"])) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == 24 and frames[-1].time == 23  # one per second
    told = json.loads(shard["long000003.json"])["caption"]
    assert shard["long000003.txt"].decode() == told[0] and len(told) > 6


def test_questions_are_read_as_the_data_set_of_that_name(made):
    path = made / "test-questions.json"
    items = read_annotations(path)
    assert items == read_annotations(path, "questions") and len(items) > 40
    keys = {name.removesuffix(".mp4") for i in range(3)
            for name in members(made / f"test-{i:06d}.tar") if name.endswith(".mp4")}  # fmt: skip
    assert {item.media.removesuffix(".mp4") for item in items} == keys
    metadata = items[0].metadata
    assert metadata["duration"] == 12 and metadata["question_type"] == "what"
    assert len(metadata["statements"]) == len(metadata["options"]) > metadata["answer"]
    assert not (made / "train-questions.json").exists()


def test_moments_are_where_the_events_are_shown(made):
    items = read_annotations(made / "test-moments.jsonl")
    assert items == read_annotations(made / "test-moments.jsonl", "moments")
    first = members(made / "test-000000.tar")
    told = json.loads(first["test000000.json"])["caption"][0].split(" then ")
    own = [item for item in items if item.media == "test000000.mp4"]
    assert [item.captions for item in own] == [[f"{event} is shown"] for event in told]
    assert [item.metadata["moments"] for item in own] == [[[2 * i, 2 * i + 2]] for i in range(6)]
    assert own[3].metadata["relevant_clip_ids"] == [3] and own[3].metadata["duration"] == 12
    several = [len(item.metadata["moments"]) for item in items if item.media == "test000012.mp4"]
    assert sorted(several) == [1, 2, 3]
    assert read_annotations(made / "train-moments.jsonl")[0].media == "train000000.mp4"


def test_the_same_arguments_give_the_same_bytes(made, tmp_path):
    assert main(["--out", str(tmp_path / "again"), *SMALL]) == 0
    for path in made.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


def test_what_is_there_is_kept_and_what_is_foreign_is_not_touched(made, capsys):
    assert main(["--out", str(made), *SMALL]) == 0
    assert "already there" in capsys.readouterr().out
    assert main(["--out", str(made), *SMALL, "--seed", "1"]) == 2
    assert "was not made with these arguments" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"train": 0}, "--train is 0"),
        ({"image_size": 33}, "even number"),
        ({"train": 900}, "900 groups"),
        ({"seed": -1}, "--seed is -1"),
    ],
)
def test_numbers_that_do_not_fit(wrong, said):
    with pytest.raises(ValueError, match=said):
        FilmArguments(**wrong)
