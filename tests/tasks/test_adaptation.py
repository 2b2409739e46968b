"""What is frozen stays, to the last bit, in no group, and keeps no activations; LoRA beside it."""

import os
import re
import signal

import lightning as L
import pytest
import torch
from safetensors.torch import load_file

from tests.tasks.test_video_text import CAPTIONS
from vmm.cli import main
from vmm.export.encoder import VideoTextEncoder
from vmm.export.formats import export, load_parts
from vmm.models import videomamba
from vmm.models.lora import Lora, merge_adapters
from vmm.models.text_encoder import BertTextEncoder
from vmm.models.videomamba import VideoMamba
from vmm.runs import load_run
from vmm.tasks.classification import ClassificationTask
from vmm.tasks.loss_terms import LossWeights
from vmm.tasks.start import load_start_weights
from vmm.tasks.video_text import VideoTextTask

SIZES = {"embed_dim": 32, "depth": 3, "num_frames": 4, "image_size": 32}


@pytest.fixture
def make(root):
    name = str(root / "recipes/encoders/bert_demo")

    def text(width):
        return BertTextEncoder(width, name=name, fusion_layer=2, pretrained=False)

    def make(video=(), **settings):
        torch.manual_seed(0)
        encoder = VideoMamba(**SIZES | dict(video))
        task = VideoTextTask(encoder, text, proj_dim=16, **settings)
        task.adapt()
        return task

    return make


def batch():
    g = torch.Generator().manual_seed(0)
    return {
        "video": torch.randn(4, 4, 3, 32, 32, generator=g),
        "text": list(CAPTIONS),
        "idx": torch.arange(4),
        "key": [f"clip/{i}" for i in range(4)],
        "media": "video",
    }


def learning(task):
    return {name for name, p in task.model.named_parameters() if p.requires_grad}


def test_names_are_whole_up_to_a_dot(make):
    names = ["video_encoder.layers.1", "temperature", "text_encoder.bert."]
    task = make({"depth": 11}, freeze=names)
    frozen = {n for n, _ in task.model.named_parameters()} - learning(task)
    assert {n.split(".")[0] for n in frozen} == {"video_encoder", "temperature", "text_encoder"}
    assert {n.split(".")[2] for n in frozen if n.startswith("video")} == {"1"}
    assert {n.split(".")[1] for n in frozen if n.startswith("text")} == {"bert"}
    assert {n.split(".")[1] for n in learning(task) if n.startswith("text_e")} == {"cls"}


ENCODERS_AND_PROJECTIONS = ["video_encoder", "text_encoder", "vision_proj", "text_proj"]
ALL = [*ENCODERS_AND_PROJECTIONS, "itm_head", "temperature"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"freeze": "vido_encoder"}, "freeze 'vido_encoder' is the beginning of no parameter's"),
        ({"freeze": "video"}, "the parts of the model are itm_head, temperature, text_encoder"),
        ({"freeze": ALL}, "itm_head, temperature leaves nothing to train; name fewer parts"),
        ({"lora": Lora("text_encoder")}, "lora.targets 'text_encoder' is the whole name of no"),
    ],
)
def test_what_cannot_be_is_one_sentence(make, settings, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        make(**settings)


def test_almost_all_may_be_frozen(make):
    task = make(freeze=ENCODERS_AND_PROJECTIONS)
    assert learning(task) == {"itm_head.weight", "itm_head.bias", "temperature"}


def groups_of(task):
    """The parameters of the optimizer's groups."""
    task.trainer = type("Trainer", (), {"estimated_stepping_batches": 5})()
    optimizer = task.configure_optimizers()["optimizer"]
    task.trainer = None
    return {p for group in optimizer.param_groups for p in group["params"]}, optimizer


LOCKED = {"freeze": "video_encoder", "lora": None}
BESIDE = {"freeze": ["vision_proj"], "lora": Lora(rank=2, dropout=0.2)}
TEXT = {"freeze": None, "lora": Lora(r"text_encoder\..*(query|value)", rank=2)}


@pytest.mark.parametrize("settings", [LOCKED, BESIDE, TEXT])
def test_steps_change_all_but_what_is_frozen(make, settings):
    task = make({"drop_path_rate": 0.3}, **settings, weight_decay=0.5).train()
    inside, optimizer = groups_of(task)
    trained = learning(task)
    names = dict(task.model.named_parameters())
    assert {n for n, p in names.items() if p in inside} == trained
    before = {name: p.detach().clone() for name, p in names.items()}
    for _ in range(3):
        optimizer.zero_grad()
        task.compute_losses(batch()).total.backward()
        optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] = 1e-3
    same = {name for name, p in names.items() if torch.equal(p, before[name])}
    assert {name for name in before if names[name].grad is None} == set(before) - trained
    assert same == set(before) - trained
    assert ("lora" in "".join(trained)) == (settings["lora"] is not None)


def test_what_no_loss_reaches_keeps_its_place_in_the_groups_unless_it_is_frozen(make):
    task = make(loss_weights=LossWeights(vtm=0.0))
    assert set(task.model.itm_head.parameters()) <= groups_of(task)[0]
    task = make(loss_weights=LossWeights(vtm=0.0), freeze="itm_head")
    assert not set(task.model.itm_head.parameters()) & groups_of(task)[0]


def test_a_frozen_part_has_no_dropout_and_an_adapted_one_has(make):
    task = make(freeze=["video_encoder.layers.0", "text_encoder"]).train()
    modes = {name: part.training for name, part in task.model.named_modules()}
    off = {name for name, training in modes.items() if not training}
    assert "video_encoder.layers.0" in off and "text_encoder" in off
    assert all(n.startswith(("video_encoder.layers.0", "text_encoder")) for n in off)
    assert modes["video_encoder"] and modes["video_encoder.layers.1"]
    assert not task.eval().model.training and task.train().model.training
    assert not task.model.text_encoder.training
    task = make(freeze="video_encoder", lora=Lora(r"video_encoder.*", dropout=0.1)).train()
    layer = task.model.get_submodule("video_encoder.layers.0.mixer.in_proj")
    assert layer.training and layer.lora_dropout["default"].training
    assert not task.model.text_encoder.training  # LoRA froze it, and has nothing in it


def test_a_frozen_block_is_never_dropped(make, monkeypatch):
    seen = []
    monkeypatch.setattr(videomamba, "drop_path", lambda x, rate, on: seen.append((rate, on)) or x)
    task = make({"drop_path_rate": 0.8}, freeze="video_encoder.layers.2").train()
    task.video_encoder(batch()["video"])
    assert seen == [(0.0, True), (0.4, True), (0.8, False)]


def kept(task):
    """Bytes that backward will need of a step: of the video encoder, and of all."""
    inside, sizes = [False], {True: {}, False: {}}

    def keep(tensor):
        if tensor not in parameters:
            storage = tensor.untyped_storage()
            sizes[inside[0]][storage._cdata] = storage
        return tensor

    parameters = set(task.parameters())
    task.video_encoder.register_forward_pre_hook(lambda *_: inside.__setitem__(0, True))
    task.video_encoder.register_forward_hook(lambda *_: inside.__setitem__(0, False))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        task.train().compute_losses(batch())
    return [sum(int(x.nbytes()) for x in sizes[here].values()) for here in (True, False)]


def test_activations_below_what_is_trained_are_not_kept(make):
    everything = kept(make())
    locked = kept(make(freeze="video_encoder"))
    assert locked[0] == 0 and 0 < locked[1] <= everything[1]
    lower = [
        "patch_embed",
        "cls_token",
        "pos_embed",
        "temporal_pos_embedding",
        "layers.0",
        "layers.1",
    ]
    top = kept(make(freeze=[f"video_encoder.{name}" for name in lower]))
    assert 0 < top[0] < everything[0] / 2
    text = kept(make(lora=Lora(r"text_encoder\..*(query|value)", rank=2)))
    assert text[0] == 0


def test_layer_decay_and_text_rate_reach_the_matrices_beside(make):
    task = make(lora=Lora(rank=2), layer_decay=0.5, text_lr_ratio=0.25)
    rates = {p: g["lr_ratio"] for g in groups_of(task)[1].param_groups for p in g["params"]}
    of = {n: rates[p] for n, p in task.model.named_parameters() if p in rates}
    for name, rate in of.items():
        wanted = 1.0
        if name.startswith("video_encoder.layers."):
            wanted = 0.5 ** (3 - int(name.split(".")[2]))
        elif name.startswith("text_encoder."):
            wanted = 0.25
        assert rate == pytest.approx(wanted), name
    with pytest.raises(ValueError, match=r"layer_decay is 2; set it to"):
        make(layer_decay=2)


@pytest.fixture
def run(root, demo_shards, tmp_path, monkeypatch):
    monkeypatch.chdir(root)

    def run(version, *options, command="fit", status=0):
        words = [command, "-c", "recipes/stage2_vtt.yaml", "-c", "recipes/overlays/debug.yaml"]
        words += [*demo_shards.options(images=False), "--data.init_args.train_images=null"]
        words += [f"--trainer.logger.init_args.save_dir={tmp_path}"]
        words += [f"--trainer.logger.init_args.version={version}", *options]
        assert main(words) == status
        return tmp_path / "stage2_vtt" / version

    return run


class Stop(L.Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 2:
            os.kill(os.getpid(), signal.SIGTERM)


LORA = ("-c", "recipes/overlays/lora.yaml", "--model.init_args.lora.dropout=0.1")
EMA = ("-c", "recipes/overlays/ema.yaml", "--ema.decay=0.5")
FAST = ("--model.init_args.warmup_steps=0", "--data.init_args.steps_per_epoch=4")


def vectors(model):
    tokens = model.text_encoder.tokenize(CAPTIONS)
    with torch.no_grad():
        video = model.encode_video(batch_of_the_recipe()).pooled
        text = model.project_text(model.encode_text(*tokens).pooled)
        both = model.project_video(video).mean(1), text
    return [torch.nn.functional.normalize(x, dim=-1) for x in both]


def batch_of_the_recipe():
    return torch.randn(2, 4, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
def test_a_run_with_lora_goes_on_is_evaluated_exported_and_started_from(run, tmp_path, capsys):
    start = run("start", *FAST)
    options = (*LORA, *EMA, *FAST, f"--model.init_args.init_from={start}")
    whole = run("whole", *options)
    file = torch.load(whole / "checkpoints/last.ckpt", weights_only=True)
    state, trained = file["state_dict"], file["current_model_state"]
    (groups,) = ([g["params"] for g in o["param_groups"]] for o in file["optimizer_states"])
    heads = {"vision_proj", "text_proj", "itm_head", "temperature"}
    learnt = {n for n in state if "lora_" in n or n.split(".")[1] in heads}
    assert sum(map(len, groups)) == len(learnt)
    before = torch.load(start / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    for name, value in before.items():  # base weights, through steps, decay and the average
        name_now = name if name in state else re.sub(r"\.(\w+)$", r".base_layer.\1", name)
        alike = torch.equal(state[name_now], value) and torch.equal(trained[name_now], value)
        assert alike == (name_now not in learnt), name_now
    assert any("lora_B" in n and value.any() for n, value in trained.items())

    run("cut", *options, "--trainer.callbacks+=tests.tasks.test_adaptation.Stop", status=75)
    gone_on = run("cut", *options, "--resume")
    again = torch.load(gone_on / "checkpoints/last.ckpt", weights_only=True)
    for part in ("state_dict", "current_model_state"):
        assert all(torch.equal(again[part][n], file[part][n]) for n in file[part])

    capsys.readouterr()
    run("without", f"--ckpt_path={whole}", status=2)
    assert "of another stage or of another model" in capsys.readouterr().err

    loaded = load_run(whole, "last").model
    merged = merge_adapters(state)
    assert {f"model.{n}" for n in loaded.state_dict()} == set(merged) <= set(before)
    export(load_parts(whole, "last", "mit", ()), tmp_path / "exported", "folder")
    (weights,) = (tmp_path / "exported").glob("*.safetensors")
    assert not any("lora" in name or "base" in name for name in load_file(weights))
    used = VideoTextEncoder.from_pretrained(tmp_path / "exported", device="cpu").model
    for got, wanted in zip(vectors(used), vectors(loaded), strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-6)
    run("test", *LORA, f"--ckpt_path={whole / 'checkpoints/last.ckpt'}", command="validate")

    task = VideoTextTask(loaded.video_encoder, lambda width: loaded.text_encoder, proj_dim=64)
    for module in (task.model.video_encoder, task.model.text_encoder):
        for parameter in module.parameters():
            parameter.data.zero_()
    components = load_start_weights(task, whole)
    assert set(components) == {"video_encoder", "text_encoder", *heads}
    best = load_run(whole).model
    for name, value in best.state_dict().items():
        assert torch.equal(task.model.state_dict()[name], value), name


def test_a_classifier_learns_its_head_alone():
    torch.manual_seed(0)
    task = ClassificationTask(VideoMamba(**SIZES), 3, freeze="video_encoder")
    task.adapt()
    assert learning(task) == {"head.weight", "head.bias"}
    assert not task.train().video_encoder.training
