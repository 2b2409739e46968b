from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import tensor

from vmm.losses.mlm import mlm_loss
from vmm.masking import IGNORED

GOLDEN = Path(__file__).parents[1] / "golden"


def test_golden_loss():
    golden = load_file(GOLDEN / "d_text.safetensors")
    loss = mlm_loss(golden["mlm.logits"], golden["mlm.labels"])
    torch.testing.assert_close(loss, golden["mlm.loss"], rtol=1e-5, atol=0)


def test_hidden_positions_alone_give_the_same_loss_and_gradient():
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 7, generator=g, requires_grad=True)
    labels = tensor([[-100, 3, -100, 0, 6], [-100, -100, -100, -100, 1]])
    hidden = labels != IGNORED
    full = mlm_loss(logits, labels)
    few = mlm_loss(logits[hidden], labels[hidden])
    torch.testing.assert_close(full, few)
    (a,) = torch.autograd.grad(full, logits)
    (b,) = torch.autograd.grad(few, logits)
    torch.testing.assert_close(a, b)


def test_nothing_to_guess_is_zero_and_part_of_the_graph():
    logits = torch.randn(2, 3, 7, requires_grad=True)
    for x, labels in (
        (logits, torch.full((2, 3), IGNORED)),
        (logits[:0, 0], torch.empty(0, dtype=torch.long)),
    ):
        loss = mlm_loss(x, labels)
        assert loss.item() == 0
        (grad,) = torch.autograd.grad(loss, logits)
        assert (grad == 0).all()
