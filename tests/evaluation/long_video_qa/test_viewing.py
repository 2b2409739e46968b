import pytest

from vmm.evaluation.long_video_qa.viewing import Viewing


@pytest.mark.parametrize(
    "wrong", [{"num_frames": 4, "fps": 1.0}, {"num_frames": 0}, {"fps": -1.0}, {"window": 0}]
)
def test_how_to_look_is_checked(wrong):
    with pytest.raises(ValueError, match="--"):
        Viewing(**wrong)
