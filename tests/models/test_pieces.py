import pytest
import torch

from vmm.models.mamba import BiMambaBlock
from vmm.models.pieces import add_in_pieces, mix_in_pieces
from vmm.models.scan_order import ST_V1, ST_V2, TEMPORAL, temporal_path
from vmm.models.videomamba import VideoMamba

LENGTH = 41


@pytest.fixture
def block():
    torch.manual_seed(0)
    block = BiMambaBlock(embed_dim=12, d_state=5, d_conv=4, expand=2).double()
    block.mixer.reset_parameters("mamba", residual_branches=1)
    torch.nn.init.normal_(block.norm.weight)
    return block


@pytest.mark.parametrize("piece", [1, 2, 7, 40, 41, 100])  # 1 and 2: shorter than the convolution
def test_pieces_give_what_the_block_gives(block, piece):
    residual = torch.randn(2, LENGTH, 12, dtype=torch.float64)
    expected = residual + block(residual)
    back = torch.full((2, LENGTH, 24), torch.nan, dtype=torch.float64)
    reported = []
    add_in_pieces(block, residual, back, piece, reported.append)
    torch.testing.assert_close(residual, expected, rtol=0, atol=1e-12)
    assert sum(reported) == 2 * 2 * LENGTH


@pytest.mark.parametrize("piece", [1, 7, 40])
def test_pieces_have_the_gradient_of_the_block(block, piece):
    residual = torch.randn(2, LENGTH, 12, dtype=torch.float64, requires_grad=True)
    wanted = [residual, *block.parameters()]
    expected = torch.autograd.grad(block(residual).sin().sum(), wanted)
    actual = torch.autograd.grad(mix_in_pieces(block, residual, piece).sin().sum(), wanted)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("order", [ST_V1, ST_V2, TEMPORAL], ids=["v1", "v2", "temporal"])
def test_pieces_take_every_path(block, order):
    scans = order.scans(temporal_path(8, 5, torch.device("cpu")), "spatial")
    residual = torch.randn(2, LENGTH, 12, dtype=torch.float64)
    expected = block(residual, scans)
    torch.testing.assert_close(mix_in_pieces(block, residual, 7, scans), expected)
    others = torch.full((2, LENGTH, 24), torch.nan, dtype=torch.float64)
    added, reported = residual.clone(), []
    add_in_pieces(block, added, others, 7, reported.append, scans)
    torch.testing.assert_close(added, residual + expected)
    assert sum(reported) == 2 * LENGTH * (4 if order == ST_V2 else 2)


def test_backward_holds_less_than_the_block_does():
    block = BiMambaBlock(embed_dim=16, d_state=16, d_conv=4, expand=2)

    def saved(function):
        """Numbers that autograd keeps for the backward pass, besides parameters and input."""
        sizes = {}
        own = {p.data_ptr() for p in block.parameters()} | {residual.data_ptr()}

        def keep(x):
            storage = x.untyped_storage()
            if storage.data_ptr() not in own:
                sizes[storage.data_ptr()] = storage.nbytes() // 4
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            out = function()
        del out
        return sum(sizes.values())

    residual = torch.randn(1, 1024, 16, requires_grad=True)
    whole = saved(lambda: block(residual))
    pieces = saved(lambda: mix_in_pieces(block, residual, 128))
    assert pieces < whole / 4


def test_checkpointed_blocks_of_an_encoder_go_in_pieces(monkeypatch):
    torch.manual_seed(0)
    sizes = {"embed_dim": 16, "depth": 3, "num_frames": 4, "image_size": 32, "d_state": 4}
    encoder = VideoMamba(**sizes, num_checkpointed=2, piece_length=5)
    plain = VideoMamba(**sizes)
    plain.load_state_dict(encoder.state_dict())
    encoder, plain = encoder.double(), plain.double()
    calls = []
    monkeypatch.setattr(
        "vmm.models.videomamba.mix_in_pieces",
        lambda *x: calls.append(x[0]) or mix_in_pieces(*x),
    )
    video = torch.randn(2, 4, 3, 32, 32, dtype=torch.float64)
    gradients = []
    for model in (plain, encoder):
        model(video).pooled.sin().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    assert calls == list(encoder.layers)[:2]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-8, atol=1e-10)
