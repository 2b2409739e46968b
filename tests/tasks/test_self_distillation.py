"""A smaller encoder guides a larger one: the loss, what learns of it, what a checkpoint holds."""

from types import SimpleNamespace

import pytest
import torch
import yaml

from vmm.losses.classification import classification_loss
from vmm.models.classifier import VideoClassifier
from vmm.models.clip_vit import FrameViT
from vmm.models.videomamba import VideoMamba
from vmm.runs import load_model
from vmm.tasks.classification import ClassificationTask
from vmm.tasks.mixing import Mixing
from vmm.tasks.self_distillation import SelfDistillationTask
from vmm.types import VideoFeatures

SIZES = {"num_frames": 2, "image_size": 32, "pooling": "cls", "pool_norm": False}


def encoder(width=32, depth=2, **changes):
    return VideoMamba(width, depth, **SIZES | changes)


def make(student=None, teacher=None, **settings):
    return SelfDistillationTask(student or encoder(), 3, teacher or encoder(16, 1), **settings)


def batch(frames=2, media="video"):
    return {
        "video": torch.randn(4, frames, 3, 32, 32),
        "text": [""] * 4,
        "labels": [[(None, i % 3)] for i in range(4)],
        "idx": torch.arange(4),
        "key": [f"clip/{i}" for i in range(4)],
        "media": media,
    }


def normed(encoder, video):
    """Final normed tokens; ``pooled`` is the class token here."""
    features = encoder(video)
    return torch.cat([features.pooled, features.tokens], 1)


@pytest.mark.parametrize(("frames", "media"), [(2, "video"), (1, "image")])
def test_loss_equals_the_written_out_one(frames, media):
    task, shown = make(distill_weight=0.5), batch(frames, media)
    norm, head = task.model.distill_head
    norm.weight.data.uniform_(0.5, 2)
    own = normed(task.video_encoder, shown["video"])
    with torch.no_grad():
        target = normed(task.teacher.encoder, shown["video"])
    x = own * (own.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * norm.weight
    x = x @ head.weight.T + head.bias
    apart = x / x.norm(dim=-1, keepdim=True) - target / target.norm(dim=-1, keepdim=True)
    assert apart.shape == (4, 1 + frames * 4, 16)
    distance = apart.square().sum(-1).mean()
    labels = torch.tensor([0, 1, 2, 0])
    said = torch.nn.functional.cross_entropy(task.model.head(own[:, 0]), labels)
    losses = task.compute_losses(shown)
    torch.testing.assert_close(losses.terms["distillation"], distance)
    torch.testing.assert_close(losses.terms["classification"], said)
    torch.testing.assert_close(losses.total, said + 0.5 * distance)


def test_both_weights_are_1_by_default():
    task = make()
    losses = task.compute_losses(batch())
    torch.testing.assert_close(losses.total, sum(losses.terms.values()))


def test_both_see_the_same_mixed_clips():
    task, shown = make(mixing=Mixing(mixup_alpha=0.8), label_smoothing=0.1), batch()
    seen = []
    for one in (task.video_encoder, task.teacher.encoder):
        one.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    before = shown["video"].clone()
    losses = task.compute_losses(shown)
    assert seen[0] is seen[1] and not torch.allclose(seen[0], before)
    plain = classification_loss(task.model(before), task.targets(shown), "single_label")
    assert not torch.allclose(losses.terms["classification"], plain)


def test_all_layers_of_the_student_learn_of_it_and_none_of_the_teacher():
    task = make().train()
    task.compute_losses(batch()).terms["distillation"].backward()
    untouched = {n for n, p in task.model.named_parameters() if p.grad is None}
    assert untouched == {"head.weight", "head.bias"}  # of the classes
    for name, parameter in task.model.named_parameters():
        assert name in untouched or parameter.grad.abs().sum() > 0, name
    assert all(p.grad is None and not p.requires_grad for p in task.teacher.parameters())
    assert not any(module.training for module in task.teacher.modules())
    assert task.unread() == []


def test_the_optimizer_moves_the_student_alone():
    task = make().train()
    task._trainer = SimpleNamespace(estimated_stepping_batches=10)
    optimizer = task.configure_optimizers()["optimizer"]
    task._trainer = None
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in task.model.parameters()}
    before = {k: v.clone() for k, v in task.teacher.state_dict().items()}
    shown = batch()
    first = task.compute_losses(shown).terms["distillation"]
    for group in optimizer.param_groups:
        group["lr"] = 1e-2
    for _ in range(30):
        optimizer.zero_grad()
        losses = task.compute_losses(shown)
        losses.total.backward()
        optimizer.step()
    assert losses.terms["distillation"] < first - 0.5
    for key, value in task.teacher.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_a_run_is_a_classifier_without_the_teacher(tmp_path):
    task = make().eval()
    checkpoint = {"state_dict": dict(task.state_dict())}
    task.on_save_checkpoint(checkpoint)
    saved = set(checkpoint["state_dict"])
    assert not any(key.startswith("teacher.") for key in saved)
    heads = {"0.weight", "1.weight", "1.bias"}
    assert {f"model.distill_head.{name}" for name in heads} <= saved
    (tmp_path / "checkpoints").mkdir()
    torch.save(checkpoint | {"callbacks": {}}, tmp_path / "checkpoints" / "last.ckpt")
    sizes = SIZES | {"embed_dim": 32, "depth": 2}
    node = {"class_path": "vmm.models.videomamba.VideoMamba", "init_args": sizes}
    args = {"video_encoder": node, "num_classes": 3, "teacher": node}
    name = f"{SelfDistillationTask.__module__}.{SelfDistillationTask.__name__}"
    config = {"model": {"class_path": name, "init_args": args}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    loaded = load_model(tmp_path, VideoClassifier, "last").model
    video = batch()["video"]
    assert torch.equal(loaded(video), task.model(video))
    assert not hasattr(loaded, "distill_head")
    task.on_load_checkpoint(checkpoint)
    task.load_state_dict(checkpoint["state_dict"])  # strict
    plain = ClassificationTask(encoder(), 3, init_from=str(tmp_path))
    assert plain.load_start() == ["head", "video_encoder"]
    again = make(init_from=str(tmp_path))
    assert again.load_start() == ["distill_head", "head", "video_encoder"]


def test_the_teacher_is_loaded_whole_or_not_at_all(tmp_path, caplog):
    trained = ClassificationTask(encoder(16, 1), 5)
    file = tmp_path / "teacher.ckpt"
    torch.save({"state_dict": trained.state_dict()}, file)
    task = make(teacher_from=str(file))
    task.load_teacher()
    for key, value in trained.video_encoder.state_dict().items():
        assert torch.equal(task.teacher.encoder.state_dict()[key], value), key
    with pytest.raises(ValueError, match=r"video_encoder of .* does not fit"):
        make(teacher=encoder(8, 1), teacher_from=str(file)).load_teacher()
    torch.save({"state_dict": {"head.weight": torch.ones(1)}}, file)
    with pytest.raises(ValueError, match=r"no video_encoder .*; teacher_from wants a run"):
        task.load_teacher()
    assert "RANDOM WEIGHTS" not in caplog.text
    make().load_teacher()
    assert "RANDOM WEIGHTS" in caplog.text


def test_another_kind_of_encoder_teaches(root):
    name = str(root / "recipes/encoders/clip_vit_demo.json")
    teacher = FrameViT(name, num_frames=2, image_size=32)
    student = encoder(128, 1)
    losses = make(student, teacher).compute_losses(batch())
    assert 0 < losses.terms["distillation"] < 4


@pytest.mark.parametrize(
    ("teacher", "settings", "message"),
    [
        (lambda: encoder(64), {}, "teacher is 64 wide and the student 32; .*exchange them"),
        (lambda: encoder(16, num_frames=4), {}, "teacher's num_frames is 4 and the student's is 2"),
        (lambda: encoder(16, image_size=64), {}, "image_size is 64 and the student's is 32; make"),
        (lambda: encoder(16, patch_size=8), {}, "teacher's patch_size is 8 and"),
        (lambda: encoder(16, tubelet_size=2), {}, "teacher's tubelet_size is 2 and"),
        (lambda: encoder(16), {"distill_weight": 0}, "so the teacher has nothing to say"),
        (lambda: encoder(16), {"distill_weight": -1}, "distill_weight is -1; set it to 0 or more"),
        (lambda: encoder(16), {"teacher_from": ""}, "teacher_from is empty"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(teacher, settings, message):
    with pytest.raises(ValueError, match=message):
        make(teacher=teacher(), **settings)


def test_a_teacher_without_a_class_token_is_refused(monkeypatch):
    task = make()
    tokens = torch.zeros(4, 8, 16)
    features = VideoFeatures(tokens, tokens[:, :1], None)
    monkeypatch.setattr(task.teacher.encoder, "forward", lambda video: features)
    with pytest.raises(ValueError, match="VideoMamba gives no class token"):
        task.compute_losses(batch())
