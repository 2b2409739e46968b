"""A batch in parts gives the losses and gradients of the whole batch."""

import json
from datetime import timedelta
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from vmm.losses import contrastive
from vmm.masking import MaskSettings
from vmm.models import videomamba
from vmm.models.clip_vit import ClipTeacher
from vmm.models.lora import Lora
from vmm.models.text_encoder import BertTextEncoder
from vmm.models.videomamba import VideoMamba
from vmm.tasks import gradient_cache
from vmm.tasks.gradient_cache import Parts, joined, mean_of_means
from vmm.tasks.loss_terms import LossWeights
from vmm.tasks.video_text import VideoTextTask
from vmm.types import TextTokens

ROWS = 7


def make_task(root, bert, micro_batch, align=True, drop=0.3, **settings):
    torch.manual_seed(0)
    teacher = None
    if align:
        config = root / "recipes/encoders/clip_vit_demo.json"
        teacher = ClipTeacher(str(config), pretrained=None, image_size=32, num_layers=2)
        teacher.load()
    task = VideoTextTask(
        VideoMamba(
            embed_dim=32,
            depth=2,
            num_frames=2,
            image_size=32,
            d_state=4,
            drop_path_rate=drop,
            num_taps=2,
        ),
        partial(BertTextEncoder, name=str(bert), fusion_layer=2, pretrained=False),
        proj_dim=16,
        loss_weights=LossWeights(vtc=1.5, vtm=2.0, mlm=0.5, align=0.7 if align else 0.0),
        teacher=teacher,
        video_mask=MaskSettings("attention" if align else "random", 0.5),
        image_mask=MaskSettings("tube", 0.5),
        micro_batch=micro_batch,
        **settings,
    )
    return task.double()


def bert_with_dropout(root, folder, hidden, attention):
    for file in (root / "recipes/encoders/bert_demo").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": hidden, "attention_probs_dropout_prob": attention}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def make_batch(media="video", rows=ROWS):
    g = torch.Generator().manual_seed(3)
    frames = 2 if media == "video" else 1
    words = ["red circle", "blue bar moves", "green ring grows on a grey background", "cross"]
    return {
        "video": torch.randn(rows, frames, 3, 32, 32, generator=g, dtype=torch.float64),
        "text": [f"a {('small', 'large')[i // 4]} {words[i % 4]}" for i in range(rows)],
        "idx": torch.tensor([0, 1, 2, 0, 3, 4, 5, 6][:rows]),
        "key": [f"clip/{i}" for i in range(rows)],
        "media": media,
    }


def step(task, batch):
    """Losses, logs and gradients of a training step."""
    torch.manual_seed(1)
    losses = task.compute_losses(batch)
    losses.total.backward()
    numbers = {"total": losses.total.detach()} | losses.terms | losses.log
    gradients = {name: p.grad for name, p in task.named_parameters() if p.requires_grad}
    return {name: value.detach() for name, value in numbers.items()}, gradients


def assert_equal_steps(one, other):
    for expected, got in zip(one, other, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("media", "micro_batch", "kind"),
    [("video", 3, "softmax"), ("video", 1, "sigmoid"), ("image", 5, "sigmoid")],
)
def test_losses_and_gradients_are_those_of_the_whole_batch(
    root, tmp_path, monkeypatch, media, micro_batch, kind
):
    """With dropout and drop path that depend on what is dropped, so that no order matters."""

    def keep(x, rate):
        return (x.detach() * 1e4).frac().abs() >= rate

    def dropout(x, p=0.5, training=True, inplace=False):
        return x * keep(x, p) / (1 - p) if training and p else x

    def drop_path(x, rate, training):
        return x * keep(x[:, :1, :1], rate) / (1 - rate)

    monkeypatch.setattr(F, "dropout", dropout)
    monkeypatch.setattr(videomamba, "drop_path", drop_path)
    bert = bert_with_dropout(root, tmp_path, 0.2, 0.0)
    batch = make_batch(media)
    whole = step(make_task(root, bert, None, vtc_kind=kind).train(), batch)
    assert whole[0].keys() >= {"vtc", "vtm", "mlm", "align", "vtc_t2v_accuracy"}
    without = {name for name, g in whole[1].items() if g is None or not g.any()}
    assert without <= {"model.video_encoder.temporal_pos_embedding"}
    parted = make_task(root, bert, micro_batch, vtc_kind=kind).train()
    assert_equal_steps(whole, step(parted, batch))


def test_backward_draws_the_same_dropout_again(root, tmp_path, monkeypatch):
    """The gradients are those of the same parts when nothing is computed twice."""
    bert = bert_with_dropout(root, tmp_path, 0.2, 0.2)
    parted = step(make_task(root, bert, 3).train(), make_batch())
    for module in (gradient_cache, contrastive):
        monkeypatch.setattr(module, "checkpoint", lambda f, *args, use_reentrant: f(*args))
    assert_equal_steps(step(make_task(root, bert, 3).train(), make_batch()), parted)


def test_a_batch_without_negatives_or_hidden_words_is_nothing_to_fail_on(root):
    task = make_task(root, root / "recipes/encoders/bert_demo", 3, align=False).eval()
    task.mlm_probability = 0.0
    batch = make_batch() | {"idx": torch.zeros(ROWS, dtype=torch.int64)}
    whole = make_task(root, root / "recipes/encoders/bert_demo", None, align=False).eval()
    whole.mlm_probability = 0.0
    assert_equal_steps(step(whole, batch), step(task, batch))


def test_encoders_and_fusion_see_no_more_than_a_part(root, monkeypatch):
    task = make_task(root, root / "recipes/encoders/bert_demo", 3).eval()
    sizes = {"clips": [], "pairs": []}
    task.video_encoder.register_forward_pre_hook(
        lambda m, args: sizes["clips"].append(len(args[0]))
    )
    fusion = task.model.text_encoder.bert.encoder.layers()[-1]
    fusion.register_forward_pre_hook(lambda m, args: sizes["pairs"].append(len(args[0])))
    task.teacher.register_forward_pre_hook(lambda m, args: sizes["clips"].append(len(args[0])))
    losses = task.compute_losses(make_batch())
    assert sorted(sizes["clips"]) == [1, 1, 3, 3, 3, 3]  # teacher and student
    losses.total.backward()
    assert max(sizes["clips"]) == 3 and max(sizes["pairs"]) <= 9
    assert len(sizes["clips"]) == 9  # the student again
    sizes["clips"].clear()
    with torch.no_grad():
        task.validation_step(make_batch(), 0)
    assert sizes["clips"] == [3, 3, 1]


def test_a_batch_that_fits_is_not_computed_twice(root):
    task = make_task(root, root / "recipes/encoders/bert_demo", ROWS, align=False).eval()
    calls = []
    task.video_encoder.register_forward_pre_hook(lambda m, args: calls.append(len(args[0])))
    task.compute_losses(make_batch()).total.backward()
    assert calls == [ROWS]


def test_parts_of_tuples_and_nothing():
    parts = Parts(5, 2)
    tokens = TextTokens(torch.arange(5), torch.arange(5) * 10)
    seen = parts(lambda x, y: (x, y), tokens, None)
    assert [x.attention_mask.tolist() for x, _ in seen] == [[0, 10], [20, 30], [40]]
    assert all(y is None for _, y in seen)
    torch.testing.assert_close(joined([x for x, _ in seen]), tokens)
    assert parts.counts(torch.arange(5)).tolist() == [1, 5, 4]
    assert mean_of_means(torch.tensor([2.0, 5.0]), torch.tensor([1, 3])) == 4.25


def test_gradients_of_parts_are_summed_in_float32_under_autocast(root):
    """Autocast keeps its bfloat16 copy of a weight, which then collects gradients in bfloat16."""
    layer = nn.Linear(4, 1, bias=False)
    x = torch.cat([torch.ones(1, 4), torch.full((300, 4), 2.0**-9)])
    with torch.autocast("cpu", torch.bfloat16):
        torch.stack([y.sum() for y in Parts(301, 1)(layer, x)]).float().sum().backward()
    torch.testing.assert_close(layer.weight.grad, x.sum(0)[None], rtol=1e-5, atol=0)


def test_accumulation_says_that_it_adds_no_negatives(root, caplog):
    bert = root / "recipes/encoders/bert_demo"
    task = make_task(root, bert, None, align=False)
    for accumulated, said in ((1, 0), (4, 1)):
        task._trainer = SimpleNamespace(accumulate_grad_batches=accumulated, is_global_zero=True)
        caplog.clear()
        task.on_fit_start()
        assert len(caplog.records) == said
    assert "no negatives" in caplog.text and "micro_batch" in caplog.text
    with pytest.raises(ValueError, match=r"micro_batch is 0; set it to 1 or more"):
        make_task(root, bert, 0, align=False)


class Step(nn.Module):
    def __init__(self, task):
        super().__init__()
        self.task = task

    def forward(self, batch):
        torch.manual_seed(1)
        return self.task.compute_losses(batch).total


WAYS = ("ddp", "fsdp", "lora")


def add_matrices(task):
    """As at the start of a training, but for the second matrices, which are no longer zero."""
    task.lora = Lora(rank=2)
    task.adapt()
    for part in task.unread():
        part.requires_grad_(False)
    for name, parameter in task.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)


def _process(index, folder, root):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/init",
        rank=index,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    mesh = init_device_mesh("cpu", (2,))
    whole = make_batch(rows=8)
    rows = slice(4 * index, 4 * index + 4)
    batch = {name: x if name == "media" else x[rows] for name, x in whole.items()}
    results = {}
    for way in WAYS:
        for micro_batch in (None, 3):
            bert = root / "recipes/encoders/bert_demo"
            task = make_task(root, bert, micro_batch, align=False, drop=0.0).train()
            if way == "lora":  # all that is trained must be used
                add_matrices(task)
                model = DistributedDataParallel(Step(task))
            elif way == "ddp":
                model = DistributedDataParallel(Step(task), find_unused_parameters=True)
            else:
                model = Step(task)
                for layer in [*task.video_encoder.layers]:
                    fully_shard(layer, mesh=mesh)
                fully_shard(task.video_encoder, mesh=mesh)
            loss = model(batch)
            loss.backward()
            gradients = {"loss": loss.detach()}
            for name, p in task.named_parameters():
                grad = p.grad
                if grad is not None:
                    grad = grad.full_tensor() if isinstance(grad, DTensor) else grad
                    gradients[name] = grad.clone()
            results[way, micro_batch] = gradients
    torch.save(results, f"{folder}/{index}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_sum_the_gradients_of_parts_once(root, tmp_path):
    mp.spawn(_process, args=(tmp_path, root), nprocs=2)
    for index in range(2):
        results = torch.load(tmp_path / f"{index}.pt", weights_only=True)
        for way in WAYS:
            assert len(results[way, None]) > 60
            torch.testing.assert_close(results[way, 3], results[way, None], rtol=1e-11, atol=1e-11)
