import pytest
import torch

from tests.export.runs import VIDEO, write_run
from vmm.evaluation.probe.backbones import Backbone, open_subject
from vmm.evaluation.probe.options import Options
from vmm.export.formats import export, load_parts
from vmm.models.videomamba import VideoMamba

CLIPS = torch.randn(2, 4, 3, 32, 32)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    return folder, write_run(folder, seed=0)


def test_it_gives_what_the_encoder_pools_and_its_tokens(run):
    folder, model = run
    subject = open_subject(Options(run=folder, token_grid=0))
    with torch.inference_mode():
        expected = model.video_encoder(CLIPS)
        found = subject.encoder.encode_videos(CLIPS)
    torch.testing.assert_close(found.projected, expected.pooled)
    torch.testing.assert_close(found.tokens, expected.tokens)
    identity = subject.encoder.identity()
    assert identity["encoder"] == "VideoMamba" and identity["checkpoint"] == "last.ckpt"
    assert not subject.of_stage_1


def test_the_control_is_the_same_encoder_with_weights_of_the_seed(run):
    folder, model = run
    one, same = (open_subject(Options(run=folder)).control for _ in range(2))
    other = open_subject(Options(run=folder, seed=1)).control
    assert one.clip == open_subject(Options(run=folder)).encoder.clip
    weights = [
        {k: v for k, v in c._encoder.state_dict().items() if "patch_embed" in k}
        for c in (one, same, other)
    ]
    trained = model.video_encoder.state_dict()
    for key, value in weights[0].items():
        assert value.shape == trained[key].shape and not torch.equal(value, trained[key])
        assert torch.equal(value, weights[1][key])
    assert any(not torch.equal(weights[0][k], weights[2][k]) for k in weights[0])
    assert one.identity() == same.identity() != other.identity()
    assert open_subject(Options(run=folder, control=False)).control is None


def test_an_exported_folder_gives_what_the_run_gives(run, tmp_path):
    folder, _ = run
    export(load_parts(folder, "last", "mit", ()), tmp_path / "out", "folder")
    there = open_subject(Options(model=f"vmm:{tmp_path / 'out'}"))
    here = open_subject(Options(run=folder))
    with torch.inference_mode():
        for one, other in ((there.encoder, here.encoder), (there.control, here.control)):
            found, expected = one.encode_videos(CLIPS), other.encode_videos(CLIPS)
            torch.testing.assert_close(found.projected, expected.projected)
            torch.testing.assert_close(found.tokens, expected.tokens)


def test_regions_of_every_frame_are_means():
    torch.manual_seed(0)
    encoder = VideoMamba(**VIDEO | {"image_size": 64}).eval()
    video = torch.randn(1, 4, 3, 64, 64)
    with torch.inference_mode():
        tokens = encoder(video).tokens[0].view(4, 4, 4, 32)  # frames, rows, columns, width
        coarse = Backbone(encoder, None, {}, 2).encode_videos(video).tokens[0].view(4, 2, 2, 32)
    torch.testing.assert_close(coarse[3, 1, 0], tokens[3, 2:, :2].mean((0, 1)))
    torch.testing.assert_close(coarse[0, 0, 1], tokens[0, :2, 2:].mean((0, 1)))


def test_models_of_open_clip_have_a_control_and_no_tokens(monkeypatch):
    seen = []

    class Model:
        def __init__(self, name, pretrained, num_frames, device):
            seen.append((name, pretrained, num_frames, torch.rand(1).item()))
            self.clip = type("Clip", (), {"num_frames": num_frames})

    monkeypatch.setattr("vmm.evaluation.common.models.OpenClipEncoder", Model)
    monkeypatch.setattr("vmm.evaluation.probe.backbones.OpenClipEncoder", Model)
    subject = open_subject(Options(model="open_clip:ViT-B-32:openai", num_frames=2, seed=5))
    assert isinstance(subject.control, Model) and subject.control is not subject.encoder
    (*first, _), (*second, drawn) = seen
    assert first == ["ViT-B-32", "openai", 2] and second == ["ViT-B-32", None, 2]
    assert drawn == torch.rand(1, generator=torch.Generator().manual_seed(5)).item()


def test_a_model_of_one_s_own_has_no_control(toys):
    subject = open_subject(Options(model=toys.Colours()))
    assert subject.encoder.name == "colours" and subject.control is None
