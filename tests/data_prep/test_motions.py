import io
import json
import tarfile
from collections import Counter

import av
import numpy as np
import pytest

from data_prep.motions import CLASSES, TWINS, MotionArguments, main, plan
from vmm.shards.demo.shapes import Scene, render


@pytest.fixture(scope="module")
def test_clips(tmp_path_factory):
    """[(metadata, frames)] of the test split."""
    folder = tmp_path_factory.mktemp("made") / "motions"
    sizes = ["--train", "12", "--val", "2", "--test", "24", "--frames", "9"]
    assert main(["--out", str(folder), *sizes, "--workers", "1"]) == 0
    assert (folder / "classes.txt").read_text().splitlines() == [c.name for c in CLASSES]
    known = json.loads((folder / "classes.json").read_text())
    assert known["left speeding up"] == {"group": "speed", "twin": "right slowing down"}
    assert [known[known[c.name]["twin"]]["twin"] for c in CLASSES] == [c.name for c in CLASSES]
    found = {}
    with tarfile.open(folder / "test-000000.tar") as tar:
        for member in tar:
            key, extension = member.name.split(".")
            found.setdefault(key, {})[extension] = tar.extractfile(member).read()
    clips = []
    for sample in found.values():
        with av.open(io.BytesIO(sample["mp4"])) as container:
            frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
        clips.append((json.loads(sample["json"]), np.stack(frames)))
    return clips


def test_each_class_is_another_one_backwards_to_the_pixel(test_clips):
    twins = {frozenset(motion.name for motion in pair) for pair in TWINS}
    assert len(test_clips) == 24
    for (one, frames), (other, backwards) in zip(test_clips[::2], test_clips[1::2], strict=True):
        assert frozenset((one["caption"], other["caption"])) in twins
        assert np.array_equal(frames, backwards[::-1])


def test_splits_share_no_combination_and_every_class_is_learnt():
    jobs = plan(MotionArguments())
    seen = {split: {(job.motion, job.scene) for job in jobs[split]} for split in jobs}
    assert not seen["train"] & (seen["val"] | seen["test"]) and not seen["val"] & seen["test"]
    counts = Counter(job.motion.name for job in jobs["train"])
    assert set(counts) == {c.name for c in CLASSES} and min(counts.values()) > 200
    assert {job.motion.name for job in jobs["test"]} == set(counts)


def test_a_pace_says_how_much_of_the_motion_is_done():
    scene = Scene("circle", "red", "small", "plain", "black", "left")

    def places(pace):
        frames = render(scene, 5, 64, np.random.default_rng(0), pace)
        red = frames[..., 0] > 150
        return np.array([np.nonzero(frame)[1].mean() for frame in red])

    steps = {pace: np.diff(places(pace)) for pace in (0.5, 1, 2)}
    assert np.ptp(steps[1]) < 1 and (steps[1] < -3).all()
    assert (np.diff(steps[2]) < -1).all()  # ever faster to the left
    assert steps[0.5][0] < 3 * steps[0.5][-1]  # most of the way at first
    assert abs(steps[2].sum() - steps[1].sum()) < 1


def test_what_leaves_nothing_to_train_on(tmp_path, capsys):
    assert main(["--out", str(tmp_path / "x"), "--test", "1536"]) == 2
    assert "leave nothing to train on" in capsys.readouterr().err
