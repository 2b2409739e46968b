"""Questions and answers from shards to batches."""

import json

import pytest
import torch

from vmm.data.collate import CONTENTS, collate
from vmm.data.corpora import Mixture
from vmm.data.datamodules import WebVideoData
from vmm.data.faults import BadSamples
from vmm.data.resampled import ResampledStream
from vmm.data.shards import EvaluationClips, ShardSet
from vmm.data.stream import TrainStream
from vmm.data.transforms import ClipSettings

SETTINGS = ClipSettings(num_frames=2, image_size=16)


@pytest.fixture(scope="module")
def asking(tools, tmp_path_factory):
    """Six videos with two questions each, and one, number 3, without a question."""
    members = []
    for code in range(7):
        items = [
            {"id": f"{code}-{n}", "metadata": {"question": f"q {code} {n}", "answer": [f"a{code}"]}}
            for n in range(2)
        ]
        video, text, _ = tools.coded_sample(code)
        metadata = {"items": [] if code == 3 else items}
        members += [video, text, (f"{code:04d}.json", json.dumps(metadata).encode())]
    return tools.write_tar(tmp_path_factory.mktemp("asking") / "video-000.tar", members)


def check(batch):
    assert len(batch["answers"]) == len(batch["text"]) == len(batch["video"])
    for text, answers in zip(batch["text"], batch["answers"], strict=True):
        assert text.startswith("q ") and answers == [f"a{text.split()[1]}"]


def test_training_draws_a_question_with_its_answers(asking):
    bad = BadSamples()
    sources = {"video": Mixture({"": ShardSet(str(asking), "video")}, seed=0)}
    stream = TrainStream(
        sources, {"video": 7}, SETTINGS, steps_per_epoch=6, bad=bad, content=CONTENTS["questions"]
    )
    batches = list(stream)
    for batch in batches:
        check(batch)
    drawn = {text for batch in batches for text in batch["text"]}
    assert len(drawn) == 12  # both questions of each
    assert bad.counts["no question"] > 0


def test_captions_stay_captions(asking):
    sources = {"video": Mixture({"": ShardSet(str(asking), "video")}, seed=0)}
    batch = next(iter(TrainStream(sources, {"video": 7}, SETTINGS)))
    assert "answers" not in batch and all(text.startswith("video ") for text in batch["text"])


def test_remote_shards_ask_too(asking):
    pytest.importorskip("webdataset")
    stream = ResampledStream(
        {"video": f"pipe:cat {asking}"},
        {"video": 4},
        SETTINGS,
        steps_per_epoch=2,
        bad=BadSamples(),
        content=CONTENTS["questions"],
    )
    for batch in stream:
        check(batch)


def test_evaluation_takes_one_question_of_each_clip(asking):
    clips = EvaluationClips(str(asking), SETTINGS)
    samples = [clips[i] for i in range(7)]
    batch = collate(samples, SETTINGS, "sample", blank=True, content=CONTENTS["questions"])
    check(batch)
    assert batch["text"] == [f"q {code} {code % 2}" for code in range(7) if code != 3]
    assert batch["video"].shape[0] == 6
    for video, code in zip(batch["video"], (0, 1, 2, 4, 5, 6), strict=True):
        assert torch.equal(video, samples[code].video)
    without = collate(samples[3:4], SETTINGS, "sample", blank=True, content=CONTENTS["questions"])
    assert without["text"] == [] and without["video"].shape == (0, 2, 3, 16, 16)


def test_the_datamodule_passes_it_on(asking):
    data = WebVideoData(
        train_videos=str(asking), val_videos=str(asking), batch_size=6, num_frames=2,
        image_size=16, num_workers=0, content="questions", max_bad=1.0,
    )  # fmt: skip
    data.prepare_data()
    check(next(iter(data.val_dataloader())))
    check(next(iter(data.train_dataloader())))
