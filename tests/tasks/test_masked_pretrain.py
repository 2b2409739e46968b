import pytest
import torch
import torch.nn.functional as F

from vmm.masking import MaskSettings
from vmm.models.clip_vit import ClipTeacher
from vmm.models.videomamba import VideoMamba
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
    rows = zip(full, view.dropped, strict=True)
    expected = torch.stack([row[:, ~mask] for row, mask in rows])
    torch.testing.assert_close(view.target, expected)


def test_perfect_alignment_has_no_loss(task, batch, monkeypatch):
    torch.manual_seed(3)
    target = task.view(batch).target
    head = task.model.align_head
    monkeypatch.setattr(head, "forward", lambda taps, dropped: 5 * target.transpose(0, 1))
    torch.manual_seed(3)
    assert task.compute_losses(batch).total.abs() < 1e-5
    monkeypatch.setattr(head, "forward", lambda taps, dropped: -target.transpose(0, 1))
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


def make(root, taps, layers, interval=1, **settings):
    config = str(root / "recipes/encoders/clip_vit_demo.json")
    teacher = ClipTeacher(config, None, 32, num_layers=layers, layer_interval=interval)
    encoder = VideoMamba(embed_dim=32, depth=3, num_frames=4, image_size=32, num_taps=taps)
    return MaskedPretrainTask(encoder, teacher, **settings)


def test_every_tap_learns_from_its_layer(root, batch):
    task = make(root, 2, 2).eval()
    task.teacher.load()
    torch.manual_seed(3)
    view = task.view(batch)
    torch.manual_seed(3)
    loss = task.compute_losses(batch).total
    student = F.normalize(task.model(batch["video"], view.dropped), dim=-1)
    teacher = F.normalize(view.target, dim=-1)  # (B, K, visible, E)
    apart = [(student[k] - teacher[:, k]).square().sum(-1).mean() for k in (0, 1)]
    torch.testing.assert_close(loss, sum(apart) / 2)
    assert abs(loss - apart[0]) > 1e-3 and abs(loss - apart[1]) > 1e-3
    shallow = (student[0] - teacher[:, 1]).square().sum(-1).mean()
    assert abs(shallow - apart[0]) > 1e-3  # the layers differ, so a mixed-up order would show
    loss.backward()
    decoders = task.model.align_head.decoders
    assert all(p.grad.abs().sum() > 0 for decoder in decoders for p in decoder.parameters())


@pytest.mark.parametrize(
    ("taps", "layers", "interval", "settings", "message"),
    [
        (2, 1, 1, {}, "2 taps to align but the teacher gives 1 layers.*num_layers to 2"),
        (1, 2, 1, {}, "1 taps to align but the teacher gives 2 layers.*num_layers to 1"),
        (2, 2, 4, {}, "2 layers at interval 4 do not fit into the 4 of teacher"),
        (1, 1, 1, {"num_taps": 2}, "num_taps is 2 but the encoder has 1; leave it out"),
    ],
)
def test_taps_without_a_layer_each_are_refused(root, taps, layers, interval, settings, message):
    with pytest.raises(ValueError, match=message):
        make(root, taps, layers, interval, **settings)


def test_what_no_loss_reaches_is_all_that_has_no_gradient(task, batch):
    task.train()
    unread = {p for part in task.unread() for p in part.parameters()}
    assert len(unread) == 20  # the last mixer and its norm, the two norms behind it
    task.compute_losses(batch).total.backward()
    trained = [p for p in task.parameters() if p.requires_grad]
    assert {p for p in trained if p.grad is None} == unread
