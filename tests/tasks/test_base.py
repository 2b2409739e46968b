from functools import partial

import pytest
import torch

from vmm.masking import MaskSettings
from vmm.models.clip_vit import ClipTeacher
from vmm.models.text_encoder import BertTextEncoder
from vmm.models.videomamba import VideoMamba
from vmm.tasks.answer import AnswerTask
from vmm.tasks.masked_pretrain import MaskedPretrainTask
from vmm.tasks.video_text import VideoTextTask

OF_ALL = {
    "optimizer": partial(torch.optim.SGD, lr=0.5),
    "weight_decay": 0.25,
    "decay_policy": "reference_stage2",
    "warmup_steps": 7,
    "min_lr_ratio": 0.125,
    "init_from": "somewhere",
}
OF_PRETRAINING = {
    "video_mask": MaskSettings("tube", 0.25),
    "image_mask": MaskSettings("random", 0.75),
    "align_kind": "mse",
}


@pytest.fixture
def parts(root):
    config = str(root / "recipes/encoders/clip_vit_demo.json")
    bert = str(root / "recipes/encoders/bert_demo")
    return {
        "video_encoder": VideoMamba(embed_dim=32, depth=2, num_frames=2, image_size=32),
        "text_encoder": partial(BertTextEncoder, name=bert, fusion_layer=2, pretrained=False),
        "teacher": ClipTeacher(config, pretrained=None, image_size=32),
        "answers": "answers.json",
    }


@pytest.mark.parametrize(
    ("task", "names"),
    [
        (MaskedPretrainTask, ("video_encoder", "teacher")),
        (VideoTextTask, ("video_encoder", "text_encoder", "teacher")),
        (AnswerTask, ("video_encoder", "text_encoder", "answers")),
    ],
)
def test_every_shared_setting_arrives(task, names, parts):
    pretrains = task is not AnswerTask
    settings = OF_ALL | (OF_PRETRAINING if pretrains else {})
    made = task(**{name: parts[name] for name in names}, **settings)
    assert {name: getattr(made, name) for name in OF_ALL} == OF_ALL
    assert made.video_encoder is parts["video_encoder"]
    if pretrains:
        assert made.teacher is parts["teacher"]
        assert list(made.masks.values()) == [settings["video_mask"], settings["image_mask"]]
        assert made.align_kind == "mse"


def test_a_setting_that_no_task_has_is_refused(parts):
    with pytest.raises(TypeError, match="warm_up"):
        AnswerTask(parts["video_encoder"], parts["text_encoder"], "answers.json", warm_up=3)
