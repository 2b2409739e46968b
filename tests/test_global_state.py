"""Draws, constants and losses do not depend on what the process has set for new tensors."""

from functools import partial

import numpy as np
import pytest
import torch

from tests.global_state import STATES
from vmm import masking
from vmm.data.collate import CONTENTS, Item, Sample, collate, draw_item, make_batch
from vmm.data.sampling import choose_frames
from vmm.data.schema import RawSample
from vmm.data.shards import EvaluationSample
from vmm.data.transforms import ClipSettings, eval_transform, train_transform
from vmm.drawing import uniform_rows
from vmm.losses.answer import weigh_answers
from vmm.losses.contrastive import contrastive_loss
from vmm.losses.matching import sample_hard_negatives
from vmm.metrics import bootstrap_interval, retrieval_metrics
from vmm.models.layers import drop_path
from vmm.ops.tuning.cpu_matmul import _relative_error

SETTINGS = ClipSettings(num_frames=2, image_size=24, flip=True)
PIXELS = torch.randint(0, 256, (2, 3, 30, 40), generator=torch.Generator().manual_seed(5)).byte()
NUMBERS = torch.randn(6, 4, 8, generator=torch.Generator().manual_seed(6))
OWNERS = torch.tensor([0, 1, 2, 0, 4, 0])
WORDS = torch.full((40, 20), 7)
VOCABULARY = {"pad_id": 0, "cls_id": 1, "mask_id": 2, "vocab_size": 99}
TEMPERATURE = torch.tensor(0.1)
ATTENTION = torch.rand(3, 4, 50, generator=torch.Generator().manual_seed(7))
PATCHES = masking.Patches(3, 4, 10, 5, ATTENTION)


def uniform(rows):
    return partial(uniform_rows, range(rows))


def seeded(seed=3):
    return torch.Generator().manual_seed(seed)


def contrastive():
    loss = contrastive_loss(NUMBERS, NUMBERS[:, 0], TEMPERATURE, OWNERS)
    return [loss.loss, loss.t2v_accuracy]


def chosen():
    rules = ("random", "random_published", "random_pretrain", "random_finetune", "dense")
    times = np.arange(11) / 10
    return [choose_frames(times, 8, rule, seeded()) for rule in rules]


def captions():
    raw = RawSample("k", 0, "", b"", [str(i) for i in range(40)], {})
    return [draw_item(raw, CONTENTS["captions"], seeded(i)) for i in range(9)]


WORK = {
    "masks of tokens": lambda: [
        masking.draw_mask(kind, PATCHES, 0.5, uniform(3))
        for kind in masking.MASKS
        if kind != "none"
    ],
    "masks of words": lambda: list(masking.mlm_mask(WORDS, uniform(40), **VOCABULARY)),
    "frames": chosen,
    "captions": captions,
    "transforms": lambda: [
        train_transform(PIXELS, SETTINGS, seeded(), ["a"]),
        eval_transform(PIXELS, SETTINGS),
    ],
    "losses": lambda: [
        *contrastive(),
        *sample_hard_negatives(NUMBERS[:, 0] @ NUMBERS[:, 1].T, OWNERS, uniform(6)),
        *weigh_answers([["a", "a", "b"], ["c"]])[1:],
    ],
    "metrics": lambda: [
        retrieval_metrics(NUMBERS[:, 0] @ NUMBERS[:, 1].T, torch.arange(6, device="cpu")),
        bootstrap_interval(NUMBERS[:, 0, 0], samples=50),
    ],
    "batches": lambda: [
        collate(
            [EvaluationSample("k", 2**40, None, ["a"], {}, "unreadable")],
            SETTINGS,
            "sample",
            blank=True,
        )[name]
        for name in ("video", "idx")
    ],
    "rounding of products": lambda: [_relative_error()],
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("work", WORK)
def test_results_are_those_of_a_process_that_set_nothing(work, state):
    expected = WORK[work]()
    with STATES[state]():
        got = WORK[work]()
    for a, b in zip(got, expected, strict=True):
        if isinstance(b, torch.Tensor):
            assert a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)
        else:
            assert a == b


def test_whole_samples_are_dropped_at_the_stated_rate_in_every_type():
    """Draws of 16 bits lie on a grid of 1/256: of a rate of 0.001 they would make 1/256 or none."""
    with STATES["default bfloat16"]():
        torch.manual_seed(0)
        kept = drop_path(torch.ones(200_000, 1, dtype=torch.bfloat16), 0.001, training=True)
    assert 0.0005 < (kept == 0).float().mean() < 0.0015


def test_batches_are_made_on_the_cpu():
    with torch.device("meta"):
        batch = make_batch([Sample(NUMBERS[:2], Item("a"), 2**40, "k")], "video")
    assert batch["idx"].tolist() == [2**40]
