import random
from types import SimpleNamespace

import numpy as np
import torch

from vmm.tasks.draws import SeededDraws


def draws(done, rank=0, before=0):
    """What is drawn in a batch after something else was."""
    torch.rand(before), np.random.rand(before)
    progress = SimpleNamespace(state_dict=lambda: {"total": {"processed": done}})
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
    trainer = SimpleNamespace(fit_loop=loop, global_rank=rank)
    SeededDraws().on_train_batch_start(trainer, None, {}, 0)
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
