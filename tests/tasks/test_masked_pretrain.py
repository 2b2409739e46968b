import pytest
import torch

from vmm.models.clip_vit import ClipTeacher
from vmm.models.videomamba import VideoMamba
from vmm.tasks.base import MaskSettings
from vmm.tasks.masked_pretrain import MaskedPretrainTask


@pytest.fixture
def task(root):
    teacher = ClipTeacher(
        str(root / "recipes/encoders/clip_vit_demo.json"), pretrained=None, image_size=32
    )
    teacher.load()
    encoder = VideoMamba(embed_dim=32, depth=2, num_frames=4, image_size=32)
    return MaskedPretrainTask(encoder, teacher, video_mask=MaskSettings("attention", 0.5)).eval()


@pytest.fixture
def batch():
    return {
        "video": torch.randn(3, 4, 3, 32, 32),
        "text": ["a", "b", "c"],
        "idx": torch.arange(3),
        "key": ["a", "b", "c"],
        "media": "video",
    }


def test_target_is_the_teacher_at_visible_places(task, batch):
    view = task.view(batch)
    assert view.dropped.shape == (3, 17)
    assert (~view.dropped).sum(1).tolist() == [1 + 4 * 2] * 3  # half of 4 patches in 4 frames
    full = task.teacher(batch["video"]).tokens
    expected = torch.stack([row[~mask] for row, mask in zip(full, view.dropped, strict=True)])
    torch.testing.assert_close(view.target, expected)


def test_perfect_alignment_has_no_loss(task, batch, monkeypatch):
    torch.manual_seed(3)
    target = task.view(batch).target
    monkeypatch.setattr(task.model.align_head, "forward", lambda taps, dropped: 5 * target[None])
    torch.manual_seed(3)
    assert task.compute_losses(batch).total.abs() < 1e-5
    monkeypatch.setattr(task.model.align_head, "forward", lambda taps, dropped: -target[None])
    torch.manual_seed(3)
    torch.testing.assert_close(task.compute_losses(batch).total, torch.tensor(4.0))


def test_a_batch_without_a_clip_is_passed_over_in_validation(task):
    nothing = {"video": torch.empty(0, 4, 3, 32, 32), "text": [], "key": [], "media": "video"}
    assert task.validation_step(nothing, 0) is None


def test_only_the_student_learns(task, batch):
    task.train()
    assert not task.teacher.visual.training
    before = {k: v.clone() for k, v in task.teacher.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in task.parameters() if p.requires_grad], lr=1e-2)
    first = task.compute_losses(batch).total
    for _ in range(20):
        optimizer.zero_grad()
        loss = task.compute_losses(batch).total
        loss.backward()
        optimizer.step()
    assert loss < first - 0.2
    for key, value in task.teacher.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_published_tap_leaves_the_last_mixer_untouched(task, batch):
    task.compute_losses(batch).total.backward()
    untouched = {n for n, p in task.model.named_parameters() if p.grad is None}
    assert all("layers.1." in n or "norm" in n for n in untouched)
    assert any("layers.1.mixer" in n for n in untouched)


def test_teacher_is_not_in_the_checkpoint(task):
    checkpoint = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(checkpoint)
    assert not any(key.startswith("teacher.") for key in checkpoint["state_dict"])
    task.on_load_checkpoint(checkpoint)
    task.load_state_dict(checkpoint["state_dict"])  # strict
    assert any(key.startswith("teacher.") for key in checkpoint["state_dict"])


@pytest.mark.parametrize("kind", ["random", "tube", "frame_row", "clip_row"])
def test_every_kind_of_mask_trains(task, batch, kind):
    task.masks["video"] = MaskSettings(kind, 0.5)
    assert torch.isfinite(task.compute_losses(batch).total)


def test_what_no_loss_reaches_is_all_that_has_no_gradient(task, batch):
    task.train()
    unread = {p for part in task.unread() for p in part.parameters()}
    assert len(unread) == 20  # the last mixer and its norm, the two norms behind it
    task.compute_losses(batch).total.backward()
    trained = [p for p in task.parameters() if p.requires_grad]
    assert {p for p in trained if p.grad is None} == unread
