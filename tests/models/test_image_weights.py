import pytest
import torch
from safetensors.torch import save_file

from vmm.models.clip_tower import build_visual
from vmm.models.video_vit import DividedViT, JointViT

timm = pytest.importorskip("timm")

NAME = "vit_tiny_patch16_224"
SIZES = {"embed_dim": 192, "depth": 2, "num_heads": 3, "num_frames": 4, "image_size": 32}
KINDS = [JointViT, DividedViT]


@pytest.fixture(scope="module")
def image_model():
    torch.manual_seed(0)
    model = timm.create_model(NAME, img_size=32, depth=2, num_classes=5).eval()
    torch.nn.init.normal_(model.cls_token)
    return model.requires_grad_(False)


@pytest.fixture
def file(image_model, tmp_path):
    path = tmp_path / "vit.pth"
    torch.save(image_model.state_dict(), path)
    return str(path)


@pytest.mark.parametrize("tubelet", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_still_has_the_tokens_of_timms_vit(image_model, file, kind, tubelet):
    encoder = kind(**SIZES, tubelet_size=tubelet, pretrained=file).eval()
    report = encoder.load_pretrained()
    assert set(report.dropped) == {"head.weight", "head.bias"}
    assert all("temporal_" in key for key in report.new)
    still = torch.randn(2, 3, 32, 32)
    want = image_model.forward_features(still)
    with torch.no_grad():
        features = encoder(still[:, None].expand(-1, tubelet, -1, -1, -1))
    torch.testing.assert_close(features.tokens, want[:, 1:], rtol=1e-4, atol=1e-5)
    pooled = want[:, 0] + want[:, 1:].mean(1)
    torch.testing.assert_close(features.pooled[:, 0], pooled, rtol=1e-4, atol=1e-5)


def test_a_model_of_timm_is_fetched_by_its_name(image_model, monkeypatch):
    asked = []

    def create_model(*names, **options):
        asked.append((names, options))
        return image_model

    monkeypatch.setattr(timm, "create_model", create_model)
    encoder = JointViT(**SIZES, pretrained=f"{NAME}.augreg_in21k")
    encoder.load_pretrained()
    assert asked == [((f"{NAME}.augreg_in21k",), {"pretrained": True})]
    assert torch.equal(encoder.blocks[1].mlp.fc2.weight, image_model.blocks[1].mlp.fc2.weight)
    with pytest.raises(ValueError, match="without QuickGELU; set quick_gelu to false"):
        JointViT(**SIZES, quick_gelu=True, pretrained=NAME).load_pretrained()


@pytest.mark.parametrize("kind", KINDS)
def test_a_still_has_the_tokens_of_clips_tower(root, tmp_path, kind):
    torch.manual_seed(0)
    tower = build_visual(str(root / "recipes/encoders/clip_vit_demo.json"), 64)
    tower = tower.requires_grad_(False).eval()
    path = tmp_path / "clip.safetensors"
    save_file({f"visual.{key}": value for key, value in tower.state_dict().items()}, path)
    encoder = kind(
        128,
        4,
        4,
        num_frames=4,
        image_size=64,
        clip_layout=True,
        quick_gelu=True,
        pretrained=str(path),
    ).eval()
    report = encoder.load_pretrained()
    assert "zero" in report.new["patch_embed.proj.bias"] and list(report.dropped) == ["proj"]
    still = torch.randn(2, 3, 64, 64)
    x = tower.conv1(still).flatten(2).transpose(1, 2)
    x = torch.cat([tower.class_embedding.expand(2, 1, -1), x], 1) + tower.positional_embedding
    want = tower.ln_post(tower.transformer(tower.ln_pre(x)))
    with torch.no_grad():
        tokens = encoder(still[:, None]).tokens
    torch.testing.assert_close(tokens, want[:, 1:], rtol=1e-4, atol=1e-5)


def test_what_cannot_be_loaded_is_said(file, monkeypatch):
    with pytest.raises(ValueError, match=r"norm_pre\.weight is missing in the file"):
        JointViT(**SIZES, clip_layout=True, pretrained=file).load_pretrained()
    with pytest.raises(ValueError, match=r"blocks\.1\.norm1\.weight is not known here"):
        JointViT(**SIZES | {"depth": 1}, pretrained=file).load_pretrained()
    with pytest.raises(ValueError, match="'vit_gigantic' is neither a file nor a model of timm"):
        JointViT(**SIZES, pretrained="vit_gigantic").load_pretrained()

    def fail(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(ValueError, match=r"could not fetch .* set pretrained to the file"):
        JointViT(**SIZES, pretrained=NAME).load_pretrained()
    assert JointViT(**SIZES).load_pretrained() is None
