import json
from functools import partial

import pytest
import torch
from safetensors.torch import save_file

from vmm.models.text_encoder import BertTextEncoder
from vmm.models.video_text import VideoTextModel
from vmm.models.videomamba import VideoMamba
from vmm.tasks.answer import AnswerTask

LIST = ["red", "green", "blue", "yellow", "moves up", "moves down", "moves to the left", "grows"]


def video_encoder():
    return VideoMamba(embed_dim=32, depth=1, num_frames=2, image_size=32)


@pytest.fixture
def text(root):
    name = str(root / "recipes/encoders/bert_demo")
    return partial(BertTextEncoder, name=name, fusion_layer=2, pretrained=False)


@pytest.fixture
def make(text, tmp_path):
    answers = tmp_path / "answers.json"
    answers.write_text(json.dumps(LIST))

    def make(**changes):
        return AnswerTask(video_encoder(), text, str(answers), **changes)

    return make


@pytest.fixture
def batch():
    """Eight videos, two questions in turn, eight different answers."""
    return {
        "video": torch.randn(8, 2, 3, 32, 32),
        "text": ["what is it", "what happens"] * 4,
        "answers": [[LIST[i // 2 + 4 * (i % 2)]] for i in range(8)],
        "idx": torch.arange(8),
        "key": [f"clip/{i}" for i in range(8)],
        "media": "video",
    }


def said(task, batch):
    answers = task.model.answer_list(LIST)
    tokens = task.model.text_encoder.tokenize(batch["text"])
    with torch.no_grad():
        ranked = task.model.rank(task.model.read(tokens, task.model.see(batch["video"])), answers)
    return [LIST[int(r.answers[0])] for r in ranked]


def test_eight_answers_are_learnt_by_heart_from_the_videos(make, batch):
    task = make()
    optimizer = torch.optim.AdamW(task.parameters(), lr=2e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = task.compute_losses(batch).total
        loss.backward()
        optimizer.step()
    assert loss < 0.2
    right = [answers[0] for answers in batch["answers"]]
    assert said(task.eval(), batch) == right
    blank = dict(batch, video=torch.zeros_like(batch["video"]))
    assert sum(a == b for a, b in zip(said(task, blank), right, strict=True)) <= 2
    logged = {}
    task.log = lambda name, value, **_: logged.update({name: float(value)})
    with torch.no_grad():
        task.validation_step(batch, 0)
        task.validation_step(batch, 1)  # a sampler that repeats samples
    task.on_validation_epoch_end()
    assert logged["val/accuracy"] == 100 and logged["val/loss"] < 0.2


def test_the_loss_is_by_share_of_answers(make, batch):
    task = make().eval()
    batch["answers"] = [["red", "red", "grows"]] * 8
    mixed = task.compute_losses(batch).total
    losses = []
    for answer in ("red", "grows"):
        batch["answers"] = [[answer]] * 8
        losses.append(task.compute_losses(batch).total)
    torch.testing.assert_close(mixed, (2 * losses[0] + losses[1]) / 3)


def test_every_trained_parameter_on_the_way_gets_a_gradient(make, batch):
    task = make()
    task.compute_losses(batch).total.backward()
    missing = {n for n, p in task.named_parameters() if p.requires_grad and p.grad is None}
    assert all("pool_norm" in name for name in missing)  # the decoder sees tokens, not the pooled
    assert not any(p.requires_grad for p in task.model.text_encoder.cls.parameters())


def test_captions_are_no_questions(make, batch):
    del batch["answers"]
    with pytest.raises(ValueError, match="content to questions"):
        make().compute_losses(batch)


def test_it_starts_from_stage_2_and_goes_on_from_itself(make, text, tmp_path):
    torch.manual_seed(3)
    stage2 = VideoTextModel(video_encoder(), text(32), 8)
    file = tmp_path / "stage2.safetensors"
    save_file({f"model.{k}": v for k, v in stage2.state_dict().items()}, file)
    task = make(init_from=str(file))
    assert set(task.load_start()) == {"video_encoder", "text_encoder"}
    decoder = task.model.answer_decoder
    theirs = stage2.text_encoder.bert.encoder.layers()[2].output.dense.weight
    assert torch.equal(decoder.bert.encoder.layers()[0].output.dense.weight, theirs)
    for parameter in decoder.parameters():
        parameter.data += 1
    own = tmp_path / "own.safetensors"
    save_file({k: v.contiguous() for k, v in task.state_dict().items()}, own)
    again = make(init_from=str(own))
    assert "answer_decoder" in again.load_start()
    bias = again.model.answer_decoder.cls.predictions.bias
    assert torch.equal(bias, decoder.cls.predictions.bias)


def test_the_decoder_may_learn_faster(make):
    assert make(decoder_lr_ratio=3.0).lr_ratios() == {"model.answer_decoder.": 3.0}


def test_other_uses_are_refused_with_the_right_command(make, batch):
    with pytest.raises(ValueError, match="vmm eval open-qa"):
        make().test_step(batch, 0)
    with pytest.raises(ValueError, match="no embeddings"):
        make().predict_step(batch, 0)
