import logging
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.data.conftest import write_tar
from vmm.data.corpora import Corpus, open_corpora
from vmm.data.shards import EvaluationClips
from vmm.data.stream import TrainStream
from vmm.data.transforms import ClipSettings
from vmm.models.videomamba import VideoMamba
from vmm.tasks.adaptation import Fixed
from vmm.tasks.base import TrainingTask
from vmm.tasks.introduction import Introduction, in_millions

SETTINGS = ClipSettings(num_frames=2, image_size=32)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.video_encoder = VideoMamba(
            image_size=32, patch_size=16, embed_dim=16, depth=1, num_frames=2
        )
        self.head = nn.Linear(4, 2)
        self.unread = nn.Linear(4, 4, bias=False)
        self.scale = nn.Parameter(torch.ones(1))


class Task(TrainingTask):
    def __init__(self):
        super().__init__(optimizer=None, init_from="runs/before")
        self.model = Model()

    def compute_losses(self, batch):
        """Nothing is trained here."""


@pytest.fixture
def said(demo_shards, caplog):
    """Introduce a run of a task with some data; give its lines by their names."""
    caplog.set_level(logging.INFO, "vmm.tasks.introduction")

    def said(task=None, sources=None, val=True, **changes):
        caplog.clear()
        loaders = {"train_dataloader": None, "val_dataloaders": None, "num_val_batches": []}
        if sources:
            stream = TrainStream(open_corpora(sources, 0), dict.fromkeys(sources, 4), SETTINGS)
            loaders["train_dataloader"] = SimpleNamespace(stream=stream)
        if val:
            clips = EvaluationClips(f"{demo_shards.folder}/val-*.tar", SETTINGS)
            loader = torch.utils.data.DataLoader(clips, batch_size=4)
            loaders |= {"val_dataloaders": loader, "num_val_batches": [1]}
        trainer = SimpleNamespace(
            fast_dev_run=False, log_dir="runs/x", global_step=0, estimated_stepping_batches=100,
            is_global_zero=True, world_size=2, accumulate_grad_batches=3, precision="bf16-mixed",
            strategy=SimpleNamespace(root_device=torch.device("cpu")), **loaders,
        )  # fmt: skip
        vars(trainer).update(changes)
        Introduction().on_train_start(trainer, task or Task())
        own = [r for r in caplog.records if r.name == "vmm.tasks.introduction"]
        lines = [record.getMessage().split(":", 1) for record in own]
        return [(name, text.strip()) for name, text in lines]

    return said


def test_corpora_stand_by_name_with_their_weight_and_what_is_left_out(said, demo_shards, tmp_path):
    own = tmp_path / "own.tar"
    members = [(f"{n}.{kind}", b"x") for n in range(5) for kind in ("mp4", "txt")]
    write_tar(own, members[:-1])
    corpora = {
        "shapes": Corpus(f"{demo_shards.folder}/train-*.tar"), "own": Corpus(str(own), weight=2.0),
    }  # fmt: skip
    lines = said(sources={"video": corpora})
    data = [text for name, text in lines if name == "data"]
    assert data[0].startswith("shapes: ") and data[1].startswith("own: 4 videos of ")
    assert data[1].endswith("own.tar (1 shard), 2 times a pass")
    found = dict(lines)
    assert found["left out"] == f"1 no caption in {own}"
    assert found["validation"].endswith("(1 shard); 1 of 4 batches")
    assert found["steps"] == "100, each of 24 videos; 2 processes on cpu, precision bf16-mixed"


def test_what_is_frozen_is_told_from_what_no_loss_reaches(said):
    task = Task()
    for part in (task.model.head, task.model.unread):
        part.requires_grad_(False)
    task.fixed = Fixed(set(task.model.head.parameters()), [task.model.head])
    task.teacher = nn.Linear(100, 100)
    found = dict(said(task))
    assert found["trained"].startswith("video_encoder (") and found["trained"].endswith("scale (1)")
    assert found["frozen"] == "head (10), the teacher (0.01 M)"
    assert found["untrained"] == "unread (16), which no loss of this recipe reaches"
    assert found["starts from"] == "runs/before" and found["run"] == "runs/x"
    assert found["model"].endswith("VideoMamba of width 16 sees 2 frames of 32 x 32 pixels")


def test_a_run_that_goes_on_says_what_is_done_and_one_at_its_end_says_nothing(said):
    assert dict(said(global_step=40))["steps"].startswith("100, of which 40 are done; ")
    endless = dict(said(estimated_stepping_batches=math.inf, fast_dev_run=True))
    assert endless["steps"].startswith("until it is stopped; ")
    assert endless["run"] == "kept nowhere" and "data" not in endless
    assert said(global_step=100) == []
    assert said(is_global_zero=False) == []


def test_parameters_that_are_kept_in_parts_count_whole():
    assert [in_millions(n) for n in (1, 9_999, 12_000, 1_234_567_890)] == [
        "1", "9,999", "0.01 M", "1,234.57 M",
    ]  # fmt: skip
