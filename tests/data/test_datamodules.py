import json
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from vmm.data.datamodules import VideoDataModule, WebVideoData
from vmm.data.transforms import ClipSettings, normalise
from vmm.data.views import Views


class Encoder(torch.nn.Module):
    def __init__(self, num_frames=4, image_size=16):
        super().__init__()
        self.num_frames, self.image_size = num_frames, image_size


class Recorder(L.LightningModule):
    """Trains nothing and notes what it is given."""

    def __init__(self, encoder=None, fail_at=None):
        super().__init__()
        self.video_encoder = encoder or Encoder()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.trained, self.validated, self.fail_at = [], [], fail_at

    def training_step(self, batch, batch_idx):
        if len(self.trained) == self.fail_at:
            raise RuntimeError("stopped")
        self.trained.append((batch["media"], tuple(batch["key"]), batch["video"].sum().item()))
        return self.weight * 0

    def validation_step(self, batch, batch_idx):
        self.validated.append(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(callbacks=(), **options):
    return L.Trainer(
        accelerator="cpu",
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 1, "num_sanity_val_steps": 0, "logger": False, **options},
    )


@pytest.fixture
def data(coded_shards):
    def make(**options):
        defaults = {
            "train_videos": f"{coded_shards}/video-*.tar",
            "train_images": f"{coded_shards}/image-*.tar",
            "batch_size": 8,
            "image_batch_size": 4,
            "num_workers": 0,
        }
        return WebVideoData(**(defaults | options))

    return make


@pytest.mark.parametrize("name", ["batch_size", "image_batch_size", "steps_per_epoch"])
def test_nothing_at_once_is_not_as_many_as_usual(data, name):
    with pytest.raises(ValueError, match=f"{name} 0"):
        data(**{name: 0})


def attached(datamodule, encoder=None):
    """Give a datamodule the little of a trainer that it reads."""
    progress = SimpleNamespace(state_dict=lambda: {"total": {"processed": 0}})
    datamodule.trainer = SimpleNamespace(
        lightning_module=SimpleNamespace(video_encoder=encoder or Encoder()),
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress)),
        state=SimpleNamespace(fn="fit"),
        loggers=[],
    )
    return datamodule


@pytest.mark.parametrize("workers", [0, 1])
def test_fit_sees_every_sample_once_per_epoch(data, coded_shards, workers):
    model = Recorder()
    datamodule = data(num_workers=workers, val_videos=f"{coded_shards}/video-000.tar")
    trainer(max_epochs=2).fit(model, datamodule)
    assert len(model.trained) == 18 and len(model.validated) == 2 * 2
    for epoch in (model.trained[:9], model.trained[9:]):
        keys = [key for _, batch, _ in epoch for key in batch]
        assert len(keys) == len(set(keys)) == 56
    assert model.trained[:9] != model.trained[9:]
    batch = model.validated[1]
    assert batch["text"] == ["video 8", "video 9"] and batch["idx"].tolist() == [8, 9]
    assert batch["key"] == ["video-000/0008", "video-000/0009"] and batch["media"] == "video"
    assert batch["video"].shape == (2, 4, 3, 16, 16)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("precision", "dtype"), [("32-true", torch.float32), ("bf16-true", torch.bfloat16)]
)
def test_a_step_sees_what_the_loader_gives_normalised(data, workers, precision, dtype):
    class Seeing(Recorder):
        def training_step(self, batch, batch_idx):
            seen.append(batch["video"])
            return super().training_step(batch, batch_idx)

    seen = []
    own = {"mean": (0.25, 0.5, 0.75), "std": (0.5, 0.25, 0.125)}
    trainer(precision=precision).fit(Seeing(), data(num_workers=workers, **own))
    given = list(attached(data(**own)).train_dataloader())
    assert len(seen) == len(given) > 2
    for video, batch in zip(seen, given, strict=True):
        assert batch["video"].dtype == torch.uint8 and video.dtype == dtype
        settings = ClipSettings(4, 16, **own)
        assert torch.equal(video, normalise(batch["video"], settings).to(dtype))


def test_erased_clips_come_normalised_and_stay_as_they_are(data):
    model, erasing = Recorder(), data(random_erasing=0.5)
    trainer().fit(model, erasing)
    given = list(attached(data(random_erasing=0.5)).train_dataloader())
    assert {batch["video"].dtype for batch in given} == {torch.float32}
    assert [total for _, _, total in model.trained] == [b["video"].sum().item() for b in given]


def test_repeats_of_the_sampler_are_passed_on(data, coded_shards):
    datamodule = attached(data(sampler_repeats=2, train_images=None))
    batch = next(iter(datamodule.train_dataloader()))
    assert batch["key"][::2] == batch["key"][1::2] and len(set(batch["key"])) == 4
    with pytest.raises(ValueError, match="sampler_repeats 0"):
        data(sampler_repeats=0)
    remote = f"pipe:cat {coded_shards}/video-000.tar"
    datamodule = attached(data(sampler_repeats=2, train_images=None, train_videos=remote))
    with pytest.raises(ValueError, match="sampler_repeats 2 needs an order"):
        datamodule.train_dataloader()


def test_stills_validate_as_stills(data, coded_shards):
    datamodule = attached(data(val_images=f"{coded_shards}/image-000.tar"))
    assert datamodule.validates
    batch = next(iter(datamodule.val_dataloader()))
    assert batch["media"] == "image" and batch["video"].shape == (8, 1, 3, 16, 16)
    assert batch["text"][0] == "image 40"
    datamodule.val_videos = datamodule.val_images
    with pytest.raises(ValueError, match="val_videos and val_images are both set; give one"):
        datamodule.val_dataloader()
    with pytest.raises(ValueError, match="test_videos and test_images are not set"):
        datamodule.test_dataloader()


def test_a_classifier_is_tested_by_all_views(data, coded_shards):
    shards = {"test_videos": f"{coded_shards}/video-000.tar"}
    datamodule = attached(data(**shards, test_views=Views(2, 3), fit="crop"))
    with pytest.raises(
        ValueError, match=r"test_views is Views\(clips=2, crops=3\), and only class"
    ):
        datamodule.test_dataloader()
    datamodule.trainer.lightning_module.sees_views = True
    batch = next(iter(datamodule.test_dataloader()))
    assert batch["video"].shape == (8, 6, 4, 3, 16, 16)
    datamodule = attached(data(test_images=f"{coded_shards}/image-000.tar"))
    datamodule.trainer.lightning_module.sees_views = True
    assert next(iter(datamodule.test_dataloader()))["video"].shape == (8, 1, 1, 3, 16, 16)
    datamodule = attached(data(**shards, test_views=Views(2, 3)))
    datamodule.trainer.lightning_module.sees_views = True
    with pytest.raises(ValueError, match="3 crops of squashed frames are all the same"):
        datamodule.test_dataloader()


@pytest.mark.parametrize("stop", [3, 5, 7])
def test_a_continued_run_gets_the_batches_it_would_have_got(data, tmp_path, stop):
    options = {"steps_per_epoch": 5}
    whole = Recorder()
    trainer(max_epochs=2).fit(whole, data(**options))
    assert len(whole.trained) == 10

    first = Recorder(fail_at=stop)
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=1, filename="{step}", save_top_k=-1)
    with pytest.raises(RuntimeError, match="stopped"):
        trainer([saver], max_epochs=2).fit(first, data(**options))
    second = Recorder()
    workers = stop % 2  # another number of workers than before
    continued = trainer(max_epochs=2)
    path = tmp_path / f"step={stop}.ckpt"
    continued.fit(second, data(**options, num_workers=workers), ckpt_path=path)
    assert first.trained + second.trained == whole.trained


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 7}, r"seed: 0 -> 7"),
        ({"batch_size": 4}, r"global_batch: .*8.* -> .*4.*times the number of processes must stay"),
        ({"train_images": None}, r"global_batch.*data"),
    ],
)
def test_a_run_is_not_continued_with_other_data(data, tmp_path, changed, message):
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=2, filename="saved")
    trainer([saver], max_steps=2).fit(Recorder(), data())
    with pytest.raises(ValueError, match=rf"cannot continue .*{message}"):
        trainer().fit(Recorder(), data(**changed), ckpt_path=tmp_path / "saved.ckpt")


class SaveAfter(L.Callback):
    """Save a checkpoint after a number of batches, wherever that is."""

    def __init__(self, batches, path):
        self.batches, self.path = batches, path

    def on_train_batch_end(self, trainer, *unused):
        if trainer.fit_loop.epoch_loop.batch_progress.total.processed == self.batches:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize(("batches", "stepped"), [(3, 3), (4, 3), (5, 3), (7, 7), (8, 7), (12, 10)])
def test_the_saved_position_is_that_of_the_last_optimizer_step(data, tmp_path, batches, stepped):
    """Epochs of 7 batches, steps after batches 3, 6, 7; 10, 13, 14."""
    options = {"max_epochs": 2, "accumulate_grad_batches": 3}
    path = tmp_path / "saved.ckpt"
    whole, continued = Recorder(), Recorder()
    trainer([SaveAfter(batches, path)], **options).fit(whole, data(steps_per_epoch=7))
    saved = torch.load(path, weights_only=True)
    assert saved["WebVideoData"]["completed"] == stepped
    # The loops' own state has no part in it.
    assert saved["loops"]["fit_loop"]["state_dict"]["combined_loader"] == [{}]
    second = trainer(**options)
    second.fit(continued, data(steps_per_epoch=7), ckpt_path=path)
    assert continued.trained == whole.trained[stepped:]
    assert second.global_step == 6 and second.current_epoch == 2


def test_clip_sizes_come_from_the_encoder(data, coded_shards):
    datamodule = attached(data(test_videos=f"{coded_shards}/video-*.tar"), Encoder(3, 32))
    batch = next(iter(datamodule.train_dataloader()))
    assert batch["video"].shape[-3:] == (3, 32, 32)
    assert next(iter(datamodule.test_dataloader()))["video"].shape == (8, 3, 3, 32, 32)


@pytest.mark.parametrize(("name", "own", "encoder"), [("num_frames", 8, 4), ("image_size", 32, 16)])
def test_other_sizes_than_the_encoders_are_refused(data, name, own, encoder):
    with pytest.raises(ValueError, match=f"data.{name} is {own} but the encoder's is {encoder}"):
        trainer().fit(Recorder(), data(**{name: own}))
    attached(data(**{name: encoder})).setup("fit")


def test_without_encoder_the_sizes_must_be_given(data):
    with pytest.raises(ValueError, match="num_frames is not set"):
        data().clip_settings()
    assert data(num_frames=2, image_size=8).clip_settings().num_frames == 2
    assert len(data(num_frames=2, image_size=8).train_dataloader()) == 9


@pytest.mark.parametrize(
    ("loader", "name"),
    [
        ("train_dataloader", "train_videos"),
        ("val_dataloader", "val_videos"),
        ("test_dataloader", "test_videos"),
        ("predict_dataloader", "test_videos"),
    ],
)
def test_missing_patterns_are_named(loader, name):
    datamodule = WebVideoData(num_frames=2, image_size=8)
    with pytest.raises(ValueError, match=name):
        getattr(datamodule, loader)()


def test_wrong_patterns_stop_a_run_before_it_starts(data):
    with pytest.raises(ValueError, match=r"'nowhere/\*\.tar' matches no file"):
        trainer().fit(Recorder(), data(val_videos="nowhere/*.tar"))


@pytest.mark.parametrize("stage", ["fit", "validate", "test", "predict"])
def test_what_is_measured_on_clips_of_training_is_told_once(
    data, coded_shards, tmp_path, caplog, stage
):
    link = tmp_path / "link.tar"
    link.symlink_to(coded_shards / "video-000.tar")
    clean = {"val_images": None, "test_images": None}
    part = "test" if stage == "test" else "val"
    module = data(num_frames=4, image_size=16, **clean, **{f"{part}_videos": str(link)})
    module.prepare_data()
    module.setup(stage)
    said = (
        []
        if stage == "predict"
        else [
            f"train_videos and {part}_videos share 1 shard: {link}; what is measured "
            "on clips that were trained on says nothing about new ones, so give "
            f"{part}_videos other shards"
        ]
    )
    assert caplog.messages == said == module.leaks
    caplog.clear()
    others = data(num_frames=4, image_size=16, val_videos=f"{coded_shards}/image-*.tar")
    others.setup("fit")
    assert not caplog.messages


@pytest.mark.parametrize(
    "options",
    [{"batch_size": 0}, {"image_batch_size": -1}, {"num_workers": -1}, {"max_bad": 1.5}],
)
def test_impossible_numbers_are_refused(options):
    with pytest.raises(ValueError, match=r"at least|no share"):
        WebVideoData(**options)


def two_processes(monkeypatch, rank, other=None):
    """Let the data believe that it is one of two processes, and what the other one sees."""

    def gather(into, own):
        into[:] = [own, other or own]

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: rank)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)


def test_ranks_divide_the_steps(data, monkeypatch):
    whole = list(attached(data()).train_dataloader())
    halves = []
    for rank in range(2):
        two_processes(monkeypatch, rank)
        halves.append(list(attached(data(batch_size=4, image_batch_size=2)).train_dataloader()))
    for all_of_it, first, second in zip(whole, *halves, strict=True):
        assert all_of_it["key"] == first["key"] + second["key"]


def test_processes_that_see_other_data_are_refused(data, monkeypatch):
    two_processes(monkeypatch, 0, other={"data": "other"})
    with pytest.raises(ValueError, match="process 1 sees other training data than process 0"):
        attached(data(batch_size=4, image_batch_size=2)).train_dataloader()


def test_what_is_left_out_is_in_the_run_directory(data, tools, tmp_path):
    members = [*tools.coded_sample(1), ("2.txt", b"no video"), ("3.mp4", b"x"), ("3.txt", b"bad")]
    shard = str(tools.write_tar(tmp_path / "a.tar", members))
    logger = CSVLogger(tmp_path, name="runs", version=0)
    for _ in range(2):  # a second run into the same file says nothing twice
        trainer(logger=logger, max_steps=4).fit(
            Recorder(), data(train_videos=[shard, f"{tmp_path}/{{a,b}}.tar"], train_images=None,
            batch_size=1, max_bad=1.0),
        )  # fmt: skip
    lines = (tmp_path / "runs/version_0/quarantine.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert [(line["shard"], line["key"], line["reason"]) for line in found] == [
        (f"{tmp_path}/b.tar", "", "missing shard"),
        ("a", "2", "no video"),
        ("a", "3", "unreadable"),
    ]


def test_an_error_about_a_dead_worker_says_what_it_read(data):
    datamodule = attached(data(num_workers=1))
    error, other = RuntimeError("DataLoader worker (pid 7) is killed by signal."), ValueError("x")
    datamodule.on_exception(error)  # before there are workers
    batches = iter(datamodule.train_dataloader())
    next(batches)
    datamodule.on_exception(error)
    datamodule.on_exception(other)
    (note,) = error.__notes__
    assert "worker 0: 'video-00" in note or "worker 0: 'image-00" in note
    assert not hasattr(other, "__notes__")


@pytest.fixture
def with_broken_clip(tools, tmp_path):
    members = [m for code in range(3) for m in tools.coded_sample(code)]
    members[3] = (members[3][0], b"garbage")
    tools.write_tar(tmp_path / "a.tar", members)
    return str(tmp_path / "a.tar"), str(tmp_path / "bad.jsonl")


def test_a_broken_clip_stays_a_query_in_tests_and_is_left_out_of_predictions(with_broken_clip):
    shard, record = with_broken_clip
    options = {"num_frames": 2, "image_size": 8, "quarantine": record, "num_workers": 1}
    datamodule = WebVideoData(test_videos=shard, val_videos=shard, **options)
    for loader in (datamodule.test_dataloader(), datamodule.val_dataloader()):
        (batch,) = loader
        assert batch["text"] == ["video 0", "video 1", "video 2"]
        assert [bool(v.any()) for v in batch["video"]] == [True, False, True]
    (batch,) = datamodule.predict_dataloader()
    assert batch["text"] == ["video 0", "video 2"] and batch["idx"].tolist() == [0, 2]
    with open(record) as file:
        assert [json.loads(line)["key"] for line in file] == ["0001"]


def test_a_batch_without_any_readable_clip_is_empty(with_broken_clip):
    shard, _ = with_broken_clip
    datamodule = WebVideoData(
        test_videos=shard, num_frames=2, image_size=8, num_workers=0, batch_size=1
    )
    first, broken, *_ = datamodule.predict_dataloader()
    assert first["key"] == ["a/0000"] and first["video"].shape == (1, 2, 3, 8, 8)
    assert (broken["key"], broken["text"], broken["video"].shape) == ([], [], (0, 2, 3, 8, 8))


def test_captions_as_positives_hold_in_evaluation_too(coded_shards):
    datamodule = WebVideoData(
        train_videos=f"{coded_shards}/video-*.tar",
        val_videos=f"{coded_shards}/video-*.tar",
        positives="caption",
        num_frames=2,
        image_size=8,
        num_workers=0,
        batch_size=40,
    )
    (train,), (val,) = datamodule.train_dataloader(), datamodule.val_dataloader()
    idx = dict(zip(train["text"], train["idx"].tolist(), strict=True))
    assert idx == dict(zip(val["text"], val["idx"].tolist(), strict=True))


def test_the_base_holds_the_sizes_only():
    assert attached(VideoDataModule()).clip_size() == (4, 16)
