from datetime import timedelta
from types import SimpleNamespace

import lightning as L
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import save_file
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from data_prep.make_shards import main as make_shards
from tests.shards.clips import write_picture
from vmm.data.datamodules import WebVideoData
from vmm.data.views import Views
from vmm.losses.classification import smooth
from vmm.models.alignment_head import AlignmentHead
from vmm.models.classifier import VideoClassifier
from vmm.models.masked_student import MaskedStudent
from vmm.models.text_encoder import BertTextEncoder
from vmm.models.video_text import VideoTextModel
from vmm.models.videomamba import VideoMamba
from vmm.optim import param_groups
from vmm.tasks import draws
from vmm.tasks.classification import ClassificationTask
from vmm.tasks.mixing import Mixing

NAMES = ["red", "green", "blue", "yellow", "up", "down", "left", "grows"]


def encoder(**changes):
    small = {"embed_dim": 32, "depth": 1, "num_frames": 2, "image_size": 32}
    return VideoMamba(**small | {"pooling": "cls", "pool_norm": False} | changes)


def make(num_classes=8, **changes):
    return ClassificationTask(encoder(), num_classes, **changes)


@pytest.fixture
def names(tmp_path):
    file = tmp_path / "classes.txt"
    file.write_text("\n".join(NAMES))
    return str(file)


def batch(labels, **changes):
    return {
        "video": torch.randn(len(labels), 2, 3, 32, 32),
        "text": [""] * len(labels),
        "labels": labels,
        "idx": torch.arange(len(labels)),
        "key": [f"clip/{i}" for i in range(len(labels))],
        "media": "video",
    } | changes


def learnt(task, batch, steps=60):
    optimizer = torch.optim.AdamW(task.parameters(), lr=3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = task.compute_losses(batch).total
        loss.backward()
        optimizer.step()
    logged = {}
    task.eval().log = lambda name, value, **_: logged.update({name: float(value)})
    with torch.no_grad():
        task.validation_step(batch, 0)
        task.validation_step(batch, 1)  # a sampler that repeats samples
    task.on_validation_epoch_end()
    assert set(logged) == {name for name in task.curves() if name.startswith("val/")}
    return logged


def test_names_of_classes_are_learnt_by_heart(names):
    logged = learnt(make(classes=names), batch([[(name, None)] for name in NAMES]))
    assert logged["val/top_1"] == 100 and logged["val/loss"] < 0.2


def test_an_untrained_head_is_measured_as_such():
    task = make()
    for parameter in task.model.head.parameters():
        torch.nn.init.zeros_(parameter)
    logged = learnt(task, batch([[(None, i)] for i in range(8)]), steps=0)
    assert logged["val/top_1"] == 12.5 and logged["val/top_5"] == 62.5  # all scores are equal


def test_several_labels_of_each_clip_are_learnt():
    labels = [[(None, i), (None, (i + 3) % 8)] for i in range(8)]
    logged = learnt(make(problem_type="multi_label"), batch(labels))
    assert logged["val/mean_average_precision"] == 100 and logged["val/loss"] < 0.2


def test_a_test_merges_the_views_of_each_sample():
    task = make(3)
    said = torch.tensor([[[8.0, 0, 0], [0, 1, 0], [0, 1, 0]], [[0, 2.0, 0], [0, 0, 1], [0, 0, 0]]])
    task.model.forward = lambda views: said[int(views[0, 0, 0, 0, 0])]
    video = torch.arange(2.0).view(2, 1, 1, 1, 1, 1).expand(2, 3, 2, 3, 32, 32)
    task.test_step(batch([[(None, 0)], [(None, 2)]], video=video), 0)
    logged = {}
    task.log = lambda name, value, **_: logged.update({name: value})
    task.on_test_epoch_end()
    # Two of three views of the first say 1, but are less sure than the one that says 0.
    assert logged == {"test/top_1": 50, "test/top_5": 100}


def test_a_number_is_learnt():
    labels = [[("4.5", 4.5 - i)] for i in range(4)]
    logged = learnt(make(1, problem_type="regression"), batch(labels))
    assert logged["val/mse"] < 0.05 and logged["val/mse"] == pytest.approx(logged["val/loss"])


def test_targets_are_smoothed_in_training_only():
    task = make(label_smoothing=0.5)
    shown = batch([[(None, 2)], [(None, 3)]])
    smoothed = task.compute_losses(shown).total
    plain = task.eval().compute_losses(shown).total
    log = task.model(shown["video"]).log_softmax(1)
    target = torch.nn.functional.one_hot(torch.tensor([2, 3]), 8)
    torch.testing.assert_close(plain, -(log * target).sum(1).mean())
    torch.testing.assert_close(smoothed, -(log * (target / 2 + 1 / 16)).sum(1).mean())


def test_training_sees_mixed_clips_and_validation_does_not(monkeypatch):
    task = make(label_smoothing=0.1, mixing=Mixing(mixup_alpha=0.8))
    shown = batch([[(None, i)] for i in range(4)])
    task._trainer = SimpleNamespace(training=True)
    monkeypatch.setattr(draws, "_batch_number", lambda trainer: 7)
    video, targets = task.shown(shown)
    again, _ = task.shown(shown)
    assert torch.equal(video, again)  # it follows from the batch's number and key
    rng = draws.batch_draws(task._trainer, "mixing", "clip/0")
    plain = smooth(torch.eye(8)[:4], 0.1)
    expected = Mixing(mixup_alpha=0.8)(shown["video"], plain, rng)
    assert torch.equal(video, expected[0]) and torch.equal(targets, expected[1])
    assert not torch.equal(video, shown["video"])
    monkeypatch.setattr(draws, "_batch_number", lambda trainer: 8)
    assert not torch.equal(task.shown(shown)[0], video)
    video, targets = task.eval().shown(shown)
    assert video is shown["video"] and torch.equal(targets, torch.eye(8)[:4])


def rates(task):
    """Parameter -> its learning rate as a share of the optimizer's."""
    names = {parameter: name for name, parameter in task.named_parameters()}
    groups = param_groups(task, 0.05, lr_ratios=task.lr_ratios())
    return {names[p]: group["lr_ratio"] for group in groups for p in group["params"]}


def test_layer_decay_reaches_every_layer():
    encoder = VideoMamba(embed_dim=32, depth=12, num_frames=2, image_size=32)
    found = rates(ClassificationTask(encoder, 8, layer_decay=0.5))
    for name, rate in found.items():
        inside = name.removeprefix("model.video_encoder.")
        if inside.startswith("layers."):
            assert rate == 0.5 ** (12 - int(inside.split(".")[1])), name
        elif inside.startswith(("norm", "pool_norm", "model.head")):
            assert rate == 1, name
        else:
            assert rate == 0.5**13, name
    assert set(found.values()) == {0.5**i for i in range(14)}


def test_the_published_layer_decay_reaches_the_embedding_only():
    encoder = VideoMamba(embed_dim=32, depth=12, num_frames=2, image_size=32)
    found = rates(ClassificationTask(encoder, 8, layer_decay=0.5, layer_decay_policy="published"))
    slow = {n.removeprefix("model.video_encoder.") for n, rate in found.items() if rate != 1}
    assert slow == {"patch_embed.proj.weight", "patch_embed.proj.bias", "cls_token", "pos_embed"}
    assert set(found.values()) == {1, 0.5**13}


def test_without_layer_decay_all_learn_alike():
    assert set(rates(make()).values()) == {1}


def test_every_trained_parameter_gets_a_gradient():
    task = make()
    task.compute_losses(batch([[(None, 1)]])).total.backward()
    missing = [n for n, p in task.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []


@pytest.mark.parametrize(
    ("labels", "settings", "message"),
    [
        (
            [("pink", None)],
            {},
            "clip/0 is labelled 'pink', which is none of the 8 classes of .*t",
        ),
        ([("red", None)], {"classes": None}, "nobody says which number that is; give .*classes"),
        ([(None, 8)], {}, "has label 8, and .*num_classes 8 means 0 to 7; set it"),
        ([(None, -1)], {}, "has label -1"),
        ([("red", 2)], {}, r"is labelled 'red' and 2, which in .* is 'blue'; give the list whose"),
        ([("red", None)], {"num_classes": 9}, "lists 8 classes and .*num_classes is 9; make them"),
        ([(None, 1), (None, 2)], {}, "has 2 labels; set .*problem_type to multi_label"),
        ([("red", None)], {"num_classes": 1, "problem_type": "regression"}, "0 numbers to predict"),
    ],
)
def test_a_wrong_label_is_one_sentence(names, labels, settings, message):
    task = make(**{"classes": names} | settings)
    with pytest.raises(ValueError, match=message):
        task.targets(batch([labels]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_classes": 0}, "num_classes is 0"),
        ({"problem_type": "softmax"}, "problem_type 'softmax' is none of"),
        ({"problem_type": "multi_label", "label_smoothing": 0.1}, "label_smoothing 0.1 is for one"),
        ({"label_smoothing": 1.5}, "label_smoothing is 1.5"),
        ({"problem_type": "regression", "mixing": Mixing(0.8)}, "numbers to predict are not mixed"),
    ],
)
def test_a_wrong_setting_is_one_sentence(settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)


def test_captions_are_no_labels():
    shown = batch([[(None, 1)]])
    del shown["labels"]
    with pytest.raises(ValueError, match="content to labels"):
        make().compute_losses(shown)


def test_a_head_of_other_classes_begins_anew_and_the_encoder_is_fitted(tmp_path, caplog):
    torch.manual_seed(3)
    given = VideoClassifier(encoder(num_frames=4, image_size=64), 5)
    file = tmp_path / "given.safetensors"
    save_file({f"model.{k}": v.contiguous() for k, v in given.state_dict().items()}, file)
    task = make(5, init_from=str(file))
    assert task.load_start() == ["head", "video_encoder"]
    assert torch.equal(task.model.head.weight, given.head.weight)
    task = make(8, init_from=str(file))
    before = task.model.head.weight.clone()
    assert task.load_start() == ["video_encoder"]
    assert torch.equal(task.model.head.weight, before)
    assert "has 5 outputs and this run 8: a new one is trained" in caplog.text
    own, other = (m.video_encoder.layers[0] for m in (task.model, given))
    assert torch.equal(own.mixer.in_proj.weight, other.mixer.in_proj.weight)
    assert task.video_encoder.pos_embed.shape == (1, 5, 32)


def saved(model, file):
    save_file({f"model.{k}": v.clone() for k, v in model.state_dict().items()}, file)
    return str(file)


def test_it_starts_from_either_stage(tmp_path, root):
    torch.manual_seed(3)
    with_norm = encoder(pool_norm=True, pooling="cls+avg")
    text = BertTextEncoder(
        32, name=str(root / "recipes/encoders/bert_demo"), fusion_layer=2, pretrained=False
    )
    stage1 = MaskedStudent(with_norm, AlignmentHead(32, 16, 1))
    stage2 = VideoTextModel(with_norm, text, 8)
    for name, model in {"stage1": stage1, "stage2": stage2}.items():
        task = make(init_from=saved(model, tmp_path / f"{name}.safetensors"))
        head = task.model.head.weight.clone()
        assert task.load_start() == ["video_encoder"]
        for key, value in task.video_encoder.state_dict().items():
            assert torch.equal(value, with_norm.state_dict()[key]), key
        assert torch.equal(task.model.head.weight, head)


def test_it_starts_from_an_image_classifier(tmp_path):
    images = VideoClassifier(encoder(num_frames=1), 8)
    images.video_encoder.temporal_pos_embedding.data.zero_()
    task = make(init_from=saved(images, tmp_path / "images.safetensors"))
    assert task.load_start() == ["head", "video_encoder"]
    still = torch.randn(2, 1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(task.model.eval()(still), images.eval()(still))
    assert task.video_encoder.temporal_pos_embedding.shape == (1, 2, 32)
    assert not task.video_encoder.temporal_pos_embedding.any()


def test_folders_of_pictures_train_and_validate(tmp_path):
    for name in ("dog", "cat"):
        for i in range(4):
            write_picture(tmp_path / f"media/{name}/{i}.png", 40 * i + 5 * (name == "cat"))
    media, out = str(tmp_path / "media"), str(tmp_path / "out")
    assert make_shards([media, media, "-o", out, "--dataset", "class-folders"]) == 0
    data = WebVideoData(
        train_images=f"{out}/*.tar", val_images=f"{out}/*.tar", test_images=f"{out}/*.tar",
        content="labels", batch_size=4, num_workers=0, auto_augment="v0", random_erasing=0.25,
        aug_repeats=2, fit="crop", crop_pct=0.875, test_views=Views(1, 3),
    )  # fmt: skip
    still = VideoMamba(
        embed_dim=32, depth=1, num_frames=1, image_size=32, pooling="cls", pool_norm=False
    )
    task = ClassificationTask(still, 2, classes=f"{out}/classes.txt", mixing=Mixing(0.8, 1.0))
    options = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=1, enable_checkpointing=False, num_sanity_val_steps=0,
        **options,
    )  # fmt: skip
    trainer.fit(task, data)
    assert trainer.global_step == 2
    assert 0 <= trainer.callback_metrics["val/top_1"] <= 100
    task.init_from = "given"  # or its weights would be the random ones of the beginning
    (found,) = trainer.test(task, data, verbose=False)
    assert set(found) == {"test/top_1", "test/top_5"}


MIXING = Mixing(mixup_alpha=0.8, cutmix_alpha=1.0)
PARTS = (slice(0, 3), slice(3, 8))
"""Rows of the two processes: not as many."""
SEEN = ((0, 2, 4), (1, 3, 0))
"""Five samples in validation, of which a sampler repeats the first to give both as many."""


class Step(nn.Module):
    def __init__(self, task):
        super().__init__()
        self.task = task

    def forward(self, batch):
        return self.task.compute_losses(batch).total


def shared(mixing):
    """A task and a batch of eight, alike in every process."""
    torch.manual_seed(0)
    task = make(label_smoothing=0.1, mixing=mixing)
    progress = SimpleNamespace(state_dict=lambda: {"total": {"processed": 7}})
    loops = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
    task._trainer = SimpleNamespace(training=True, fit_loop=loops)
    return task, batch([[(None, i)] for i in range(8)])


def part(batch, rows):
    rows = [*range(8)[rows]] if isinstance(rows, slice) else [*rows]
    picked = {name: [batch[name][row] for row in rows] for name in ("text", "labels", "key")}
    return batch | picked | {"video": batch["video"][rows], "idx": batch["idx"][rows]}


def learn(model, task, batch):
    """Loss and gradients of a step."""
    task.zero_grad()
    loss = model(batch)
    loss.backward()
    return {"loss": loss.detach()} | {n: p.grad.clone() for n, p in task.named_parameters()}


def validate(task, seen):
    logged = {}
    task.eval().log = lambda name, value, **_: logged.update({name: float(value)})
    with torch.no_grad():
        task.validation_step(seen, 0)
    task.on_validation_epoch_end()
    return logged


def _process(index, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/init", rank=index, world_size=2,
        timeout=timedelta(seconds=60),
    )  # fmt: skip
    found = {}
    for name, mixing in (("plain", Mixing()), ("mixed", MIXING)):
        task, whole = shared(mixing)
        model = DistributedDataParallel(Step(task))
        found[name] = learn(model, task, part(whole, PARTS[index]))
    found["val"] = validate(task, part(whole, SEEN[index]))
    torch.save(found, f"{folder}/{index}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    mp.spawn(_process, args=(folder,), nprocs=2)
    return [torch.load(folder / f"{index}.pt", weights_only=True) for index in range(2)]


@pytest.mark.slow
def test_two_processes_learn_what_one_does(of_two):
    task, whole = shared(Mixing())
    alone = learn(Step(task), task, whole)
    one, other = (found["plain"] for found in of_two)
    torch.testing.assert_close((one.pop("loss") + other.pop("loss")) / 2, alone.pop("loss"))
    for gradients in (one, other):
        torch.testing.assert_close(gradients, alone, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_what_is_mixed_follows_from_the_samples_not_from_the_process(of_two):
    task, whole = shared(MIXING)
    alone = [learn(Step(task), task, part(whole, rows)) for rows in PARTS]
    weights = [len(whole["key"][rows]) / 8 for rows in PARTS]
    expected = {
        name: weights[0] * alone[0][name] + weights[1] * alone[1][name] for name in alone[0]
    }
    one, other = (found["mixed"] for found in of_two)
    loss = expected.pop("loss")
    torch.testing.assert_close((one.pop("loss") + other.pop("loss")) / 2, loss)
    for gradients in (one, other):
        torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-6)
    videos = [task.shown(part(whole, rows))[0] for rows in PARTS]
    assert all(not torch.equal(v, whole["video"][r]) for v, r in zip(videos, PARTS, strict=True))


def test_validation_of_two_processes_counts_each_sample_once(of_two):
    task, whole = shared(MIXING)
    expected = validate(task, part(whole, range(5)))
    for found in of_two:
        for name in ("val/top_1", "val/top_5"):
            assert found["val"][name] == pytest.approx(expected[name])
    assert 0 < expected["val/top_5"] < 100
