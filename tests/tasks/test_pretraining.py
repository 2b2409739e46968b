"""Teachers of other kinds than CLIP, one and several, in both pretraining stages."""

import pytest
import torch
import yaml

from vmm.losses.alignment import alignment_loss
from vmm.masking import MaskSettings, gather_visible
from vmm.models.clip_vit import ClipTeacher
from vmm.models.self_distillation import EncoderTeacher
from vmm.models.several_teachers import SeveralTeachers
from vmm.models.teacher import Part, Teacher
from vmm.models.text_encoder import BertTextEncoder
from vmm.models.videomamba import VideoMamba
from vmm.tasks.masked_pretrain import MaskedPretrainTask
from vmm.tasks.run_teacher import RunTeacher
from vmm.tasks.video_text import LossWeights, VideoTextTask
from vmm.types import TeacherFeatures

NONE = {"video_mask": MaskSettings("tube", 0.5), "image_mask": MaskSettings("none")}


class Plain(Teacher):
    """Says numbers that depend on the place alone; without a class token."""

    def __init__(self, width=6, tokens=17, look=False):
        super().__init__()
        self.width, self.tokens, self.look = width, tokens, look

    output_dim = property(lambda self: self.width)
    layers = property(lambda self: [0])
    looks = property(lambda self: self.look)
    parts = property(lambda self: [Part(self.width, 1.0, False)])

    def build(self):
        pass

    load = build

    def forward(self, video):
        generator = torch.Generator().manual_seed(self.width)
        tokens = torch.randn(1, 1, self.tokens, self.width, generator=generator)
        looked = torch.arange(1.0, 5.0).expand(len(video), 4, 4) if self.look else None
        return TeacherFeatures(tokens.expand(len(video), -1, -1, -1), looked)


@pytest.fixture
def clip(root):
    return ClipTeacher(str(root / "recipes/encoders/clip_vit_demo.json"), None, 32)


@pytest.fixture
def batch():
    return {
        "video": torch.randn(3, 4, 3, 32, 32),
        "text": ["a", "b", "c"],
        "idx": torch.arange(3),
        "key": ["a", "b", "c"],
        "media": "video",
    }


def encoder(**settings):
    sizes = {"embed_dim": 32, "depth": 2, "num_frames": 4, "image_size": 32}
    return VideoMamba(**sizes | settings)


def stage1(teacher, **settings):
    task = MaskedPretrainTask(encoder(), teacher, **settings)
    task.load_teacher()
    return task


def test_the_place_of_a_class_token_that_there_is_not_is_not_aligned(batch):
    task = stage1(Plain(), **NONE)
    view = task.view(batch)
    aligned = task.model(batch["video"], view.dropped)
    want = alignment_loss(aligned[:, :, 1:], view.target.transpose(0, 1)[:, :, 1:])
    assert torch.equal(task.align(aligned, view), want)
    view.target[:, :, 0] = 99
    assert torch.equal(task.align(aligned, view), want)


def test_several_teachers_have_a_head_and_a_weight_each(batch, clip):
    members = {"clip": clip, "plain": Plain()}
    task = stage1(SeveralTeachers(members, {"clip": 0.5, "plain": 2.0}))
    torch.manual_seed(0)
    view = task.view(batch)
    loss = task.align(task.model(batch["video"], view.dropped), view)
    heads = [task.model.align_head.heads[name] for name in members]
    taps = task.video_encoder(batch["video"], view.dropped, with_taps=True).taps
    apart = []
    for head, teacher, first in zip(heads, (clip, members["plain"]), (0, 1), strict=True):
        target = gather_visible(teacher(batch["video"]).tokens[:, 0], view.dropped)[None]
        own = head(taps, view.dropped)
        apart.append(alignment_loss(own[:, :, first:], target[:, :, first:]))
    torch.testing.assert_close(loss, 0.5 * apart[0] + 2 * apart[1])
    loss.backward()
    assert all(p.grad is not None for p in task.model.align_head.parameters())
    state = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(state)
    assert not any(key.startswith("teacher.") for key in state["state_dict"])


def test_the_one_that_looks_guides_the_mask(batch, clip):
    looks = Plain(7, look=True)
    task = stage1(SeveralTeachers({"clip": clip, "plain": looks}, looks_by="plain"))
    kept = sum((~task.view(batch).dropped[:, 1:]).view(3, 4, 4).sum((0, 1)) for _ in range(60))
    assert kept[3] > 1.5 * kept[0]  # it looks four times as much at the last patch


def test_one_of_several_is_one(batch, clip):
    tasks = [MaskedPretrainTask(encoder(), t) for t in (clip, SeveralTeachers({"clip": clip}))]
    clip.load()
    tasks[1].model.load_state_dict(tasks[0].model.state_dict())
    dropped = (torch.arange(17) % 2 == 1).expand(3, -1)
    losses = []
    for task in tasks:
        view = task.view(batch, dropped)
        losses.append(task.align(task.model(batch["video"], view.dropped), view))
    assert torch.equal(*losses) and losses[0] > 0.1


def test_stage_2_aligns_to_several_in_parts_of_a_batch(batch, clip, root):
    def make(micro):
        torch.manual_seed(0)
        name = str(root / "recipes/encoders/bert_demo")
        task = VideoTextTask(
            encoder(),
            lambda width: BertTextEncoder(width, name, 2, False),
            loss_weights=LossWeights(vtm=0.0, mlm=0.0, align=1.0),
            teacher=SeveralTeachers({"clip": clip, "plain": Plain()}),
            micro_batch=micro,
        )
        return task.eval()

    clip.load()
    whole, parts = make(None), make(2)
    parts.model.load_state_dict(whole.model.state_dict())
    got = []
    for task in (whole, parts):
        losses = task.compute_losses(batch)
        losses.total.backward()
        got.append(
            (
                losses.terms["align"],
                task.model.align_head.heads["plain"].decoders[0].head.weight.grad,
            )
        )
    torch.testing.assert_close(got[0], got[1])


def test_the_order_of_teachers_in_a_recipe_does_not_matter(clip):
    """A saved recipe has them by name, and a run that goes on must not exchange their heads."""
    members = {"plain": Plain(), "clip": clip}
    tasks = [
        MaskedPretrainTask(encoder(), SeveralTeachers(dict(some)), **NONE)
        for some in (members.items(), reversed(members.items()))
    ]
    shapes = [{k: v.shape for k, v in task.model.state_dict().items()} for task in tasks]
    assert shapes[0] == shapes[1] and len(list(tasks[0].model.align_head.heads)) == 2
    names = [[part.name for part in task.teacher.parts] for task in tasks]
    assert names == [["clip", "plain"]] * 2


# ---------------------------------------------------------------- a run as a teacher


@pytest.fixture
def run(tmp_path):
    """The run of a classifier, with other statistics of pixels than usual."""
    made = encoder(embed_dim=16, pooling="cls", pool_norm=False)
    (tmp_path / "checkpoints").mkdir()
    state = {f"model.video_encoder.{k}": v for k, v in made.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "checkpoints/last.ckpt")
    sizes = {"embed_dim": 16, "depth": 2, "num_frames": 4, "image_size": 32}
    node = {
        "class_path": "vmm.models.videomamba.VideoMamba",
        "init_args": sizes | {"pooling": "cls", "pool_norm": False},
    }
    data = {"init_args": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    recipe = {"model": {"init_args": {"video_encoder": node}}, "data": data}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(recipe))
    return tmp_path, made.eval()


@torch.no_grad()
def test_a_run_teaches_what_its_encoder_says(run, batch):
    folder, made = run
    teacher = RunTeacher(str(folder))
    teacher.clip_statistics = ((0.5,) * 3, (0.25,) * 3)
    teacher.load()
    found = teacher(batch["video"])
    want = EncoderTeacher(made)(batch["video"] / 2)  # it was trained at half the contrast
    assert found.attention is None and not teacher.looks
    torch.testing.assert_close(found.tokens, want.tokens)
    task = stage1(teacher, **NONE)
    assert task.compute_losses(batch).total.isfinite()


# ---------------------------------------------------------------- what cannot work


def test_a_teacher_of_another_grid_is_refused(batch, run, root):
    large = ClipTeacher(str(root / "recipes/encoders/clip_vit_demo.json"), None, 64)
    said = "another patch grid: it gives 65 tokens of a clip of 4 frames, and the student 17"
    with pytest.raises(ValueError, match=said):
        stage1(large).compute_losses(batch)
    with pytest.raises(ValueError, match=r"33 tokens .* set the teacher's image_size to 2 times"):
        stage1(Plain(tokens=33), **NONE).compute_losses(batch)


def test_a_teacher_that_does_not_look_guides_no_mask(clip):
    said = "needs a teacher that says where it looks; set the teacher's saliency"
    with pytest.raises(ValueError, match=f"video_mask.kind is 'attention', which {said}"):
        stage1(Plain())
    stage1(SeveralTeachers({"plain": Plain(), "clip": clip}))
