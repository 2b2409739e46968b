from functools import partial

import pytest
import torch

from vmm.models.clip_vit import ClipTeacher
from vmm.models.text_encoder import BertTextEncoder
from vmm.models.videomamba import VideoMamba
from vmm.tasks.masked_pretrain import MaskedPretrainTask
from vmm.tasks.start import load_start_weights
from vmm.tasks.video_text import VideoTextTask


@pytest.fixture
def stage1(root):
    teacher = ClipTeacher(str(root / "recipes/encoders/clip_vit_demo.json"), None, 32)
    return MaskedPretrainTask(VideoMamba(32, 2, num_frames=4, image_size=32), teacher)


@pytest.fixture
def make_stage2(root):
    def make(**changes):
        sizes = {"embed_dim": 32, "depth": 2, "num_frames": 4, "image_size": 32} | changes
        name = str(root / "recipes/encoders/bert_demo")
        text = partial(BertTextEncoder, name=name, fusion_layer=2, pretrained=False)
        return VideoTextTask(VideoMamba(**sizes), text, proj_dim=16)

    return make


def save(task, path):
    torch.save({"state_dict": task.state_dict()}, path)
    return path


def test_stage_2_starts_from_stage_1(stage1, make_stage2, tmp_path, caplog):
    file = save(stage1, tmp_path / "stage1.ckpt")
    task = make_stage2()
    text = {k: v.clone() for k, v in task.model.text_encoder.state_dict().items()}
    with caplog.at_level("INFO", "vmm"):
        assert load_start_weights(task, file) == ["video_encoder"]
    for key, value in stage1.video_encoder.state_dict().items():
        assert torch.equal(task.video_encoder.state_dict()[key], value), key
    for key, value in task.model.text_encoder.state_dict().items():
        assert torch.equal(text[key], value), key
    (said,) = caplog.messages
    assert said.startswith(f"init_from {file}: takes video_encoder")
    assert "; leaves out align_head" in said and "; new are itm_head, " in said
    assert "[" not in said  # no lists of Python


def test_every_component_of_another_stage_2_run_is_taken(make_stage2, tmp_path):
    first, second = make_stage2(), make_stage2()
    first.model.temperature.data.fill_(0.2)
    loaded = load_start_weights(second, save(first, tmp_path / "first.ckpt"))
    assert set(loaded) == {
        *("video_encoder", "text_encoder", "vision_proj", "text_proj", "itm_head", "temperature")
    }
    for key, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[key], value), key


def test_parts_that_are_named_are_taken_and_no_others(make_stage2, tmp_path):
    first, second = make_stage2(), make_stage2()
    file = save(first, tmp_path / "first.ckpt")
    before = {key: value.clone() for key, value in second.state_dict().items()}
    assert load_start_weights(second, file, parts=["video_encoder"]) == ["video_encoder"]
    for key, value in second.state_dict().items():
        source = first.state_dict() if key.startswith("model.video_encoder.") else before
        assert torch.equal(value, source[key]), key
    with pytest.raises(ValueError, match=r"init_parts 'texts' is not in .*; it has .*text_encoder"):
        load_start_weights(second, file, parts=["video_encoder", "texts"])


def test_parts_are_those_of_a_run_that_is_named(root):
    name = str(root / "recipes/encoders/bert_demo")
    text = partial(BertTextEncoder, name=name, fusion_layer=2, pretrained=False)
    encoder = VideoMamba(32, 1, num_frames=2, image_size=32)
    with pytest.raises(ValueError, match="init_parts video_encoder are parts of init_from; set"):
        VideoTextTask(encoder, text, proj_dim=16, init_parts="video_encoder")


def test_other_frame_counts_and_sizes_are_interpolated(stage1, make_stage2, tmp_path):
    task = make_stage2(num_frames=8, image_size=64)
    load_start_weights(task, save(stage1, tmp_path / "stage1.ckpt"))
    assert task.video_encoder.temporal_pos_embedding.shape == (1, 8, 32)
    assert task.video_encoder.pos_embed.shape == (1, 17, 32)


def test_a_clip_encoder_starts_from_one_of_images(make_stage2, tmp_path):
    image, task = make_stage2(num_frames=1), make_stage2(tubelet_size=2)
    load_start_weights(task, save(image, tmp_path / "image.ckpt"))
    still = torch.randn(2, 1, 3, 32, 32)
    with torch.no_grad():
        tokens = task.video_encoder.eval()(still.expand(-1, 2, -1, -1, -1)).tokens
        torch.testing.assert_close(tokens, image.video_encoder.eval()(still).tokens)


def test_what_does_not_fit_is_refused(stage1, make_stage2, tmp_path):
    file = save(stage1, tmp_path / "stage1.ckpt")
    with pytest.raises(ValueError, match=r"video_encoder of .* does not fit"):
        load_start_weights(make_stage2(depth=3), file)
    torch.save({"state_dict": {"head.weight": torch.ones(1)}}, file)
    with pytest.raises(ValueError, match="holds no video_encoder"):
        load_start_weights(make_stage2(), file)
    with pytest.raises(ValueError, match="no weight file"):
        load_start_weights(make_stage2(), tmp_path / "nowhere.ckpt")
