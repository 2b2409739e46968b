import random
from types import SimpleNamespace

import numpy as np
import torch

from vmm.tasks.draws import SeededDraws, sample_draws


def trainer_at(done, rank=0, training=True):
    """A trainer in the batch after so many."""
    progress = SimpleNamespace(state_dict=lambda: {"total": {"processed": done}})
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    return SimpleNamespace(fit_loop=loop, global_rank=rank, training=training, strategy=strategy)


def draws(done, rank=0, before=0):
    """What is drawn in a batch after something else was."""
    torch.rand(before), np.random.rand(before)
    SeededDraws().on_train_batch_start(trainer_at(done, rank), None, {}, 0)
    return [*torch.rand(3).tolist(), *np.random.rand(3).tolist(), random.random()]


def test_they_depend_on_seed_batch_and_process_alone(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "1")
    first = draws(5)
    assert draws(5, before=17) == first
    others = [draws(6), draws(5, rank=1)]
    monkeypatch.setenv("PL_GLOBAL_SEED", "2")
    others.append(draws(5))
    assert len({tuple(values) for values in [first, *others]}) == 4
    assert all(a != b for values in others for a, b in zip(values, first, strict=True))


def test_a_sample_draws_the_same_on_any_process(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "1")
    both = sample_draws(trainer_at(5), "mask", ["a", "b"])(6)
    assert torch.equal(sample_draws(trainer_at(5, rank=1), "mask", ["b"])(6), both[1:])
    others = [
        both[0],
        both[1],
        sample_draws(trainer_at(6), "mask", ["a"])(6)[0],
        sample_draws(trainer_at(5), "words", ["a"])(6)[0],
        sample_draws(None, "mask", ["a"])(6)[0],
        sample_draws(None, "mask", ["a"])(6)[0],
    ]
    monkeypatch.setenv("PL_GLOBAL_SEED", "2")
    others.append(sample_draws(trainer_at(5), "mask", ["a"])(6)[0])
    assert len({tuple(row.tolist()) for row in others}) == len(others)


def test_validation_draws_the_same_every_time():
    first, later = (sample_draws(trainer_at(n, training=False), "mask", ["a"])(6) for n in (0, 9))
    assert torch.equal(first, later)
