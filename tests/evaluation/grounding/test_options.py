from pathlib import Path

import pytest

from vmm.evaluation.grounding.options import USUAL_FPS, Options


def test_a_frame_per_second_unless_their_number_is_given():
    assert Options(dataset="moments").rate == USUAL_FPS
    assert Options(dataset="moments", fps=2.0).rate == 2
    assert Options(dataset="moments", num_frames=16).rate is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shards": "x.tar"}, "give one, not shards alone"),
        ({}, "give one, not shards alone"),
        ({"dataset": "moments", "num_frames": 4, "fps": 1.0}, "either --num-frames or --fps"),
        ({"dataset": "moments", "window": 0}, "--window is 0; it must be above 0"),
        ({"dataset": "moments", "fps": -1.0}, "--fps is -1.0; it must be above 0"),
        ({"dataset": "moments", "train_media": "m"}, "--train-media needs --train-annotations"),
    ],
)
def test_what_contradicts_itself_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Options(run=Path("r"), **options)
