"""Every scan order against index lists that are written out token by token."""

from typing import get_args

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from vmm.models import scan_order
from vmm.models.long_video import encode_long_video
from vmm.models.mamba import BiMambaBlock
from vmm.models.scan_order import (
    SCAN_ORDERS,
    ST_V1,
    ST_V2,
    TEMPORAL,
    BlockOrder,
    ScanOrder,
    temporal_path,
)
from vmm.models.videomamba import VideoMamba
from vmm.ops.scan.interface import BACKENDS

STEPS, PATCHES, DEPTH = 3, 4, 5
SIZES = {"embed_dim": 12, "depth": DEPTH, "num_frames": STEPS, "image_size": 32, "d_state": 4}
EXACT = {"rtol": 1e-4, "atol": 1e-5}
CPU = torch.device("cpu")

# What every layer does: paths of the forward branch, paths of the backward branch.
S, T, V1, V2 = ("s", "s"), ("t", "t"), ("s", "t"), ("st", "st")
LAYERS = {
    "spatial": [S] * 5,
    "temporal": [T] * 5,
    "st_v1": [V1] * 5,
    "st_v2": [V2] * 5,
    "half_spatial_then_temporal": [S, S, T, T, T],
    "half_temporal_then_spatial": [T, T, S, S, S],
    "alternating": [S, T, S, T, S],
}
ALL_KINDS = [T, V1, S, T, V2]  # all kinds of layers behind each other


@pytest.fixture(scope="module")
def spatial():
    torch.manual_seed(0)
    encoder = VideoMamba(**SIZES, num_taps=2, tap_interval=2).eval()
    for parameter in encoder.parameters():  # fresh ones hardly tell orders apart
        parameter.data += 0.3 * torch.randn_like(parameter)
    return encoder


@pytest.fixture
def make(spatial):
    def ordered(order, **options):
        options = SIZES | {"num_taps": 2, "tap_interval": 2} | options
        encoder = VideoMamba(**options, scan_order=order).eval()
        encoder.load_state_dict(spatial.state_dict())
        return encoder

    return ordered


def with_all_kinds(encoder):
    paths = {"s": ("spatial",), "t": ("temporal",), "st": ("spatial", "temporal")}
    encoder.block_orders = [BlockOrder(*(paths[kinds] for kinds in layer)) for layer in ALL_KINDS]
    return encoder


def clip(steps=STEPS, batch=2):
    return torch.randn(batch, steps, 3, 32, 32)


def masks():
    """Frames that hide unequal numbers, and other places in either row."""
    hidden = torch.zeros(2, 1 + STEPS * PATCHES, dtype=torch.bool)
    hidden[0, [2, 3, 5, 9, 12]] = True
    hidden[1, [1, 4, 7, 8, 10]] = True
    return hidden


def walk(kind, visible):
    """Places of the visible tokens in the order of a path; 0 is the class token."""
    by_frame = [(1 + t * PATCHES + p, (t, p)) for t in range(STEPS) for p in range(PATCHES)]
    if kind == "t":
        by_frame.sort(key=lambda token: token[1][::-1])
    return [0] + [visible.index(i) for i, _ in by_frame if i in visible]


def one_way(mixer, silenced, hidden):
    """What a mixer gives whose other branch sees zeros."""
    conv = getattr(mixer, silenced).named_parameters(prefix=silenced)
    nothing = {name: torch.zeros_like(parameter) for name, parameter in conv}
    return torch.func.functional_call(mixer, nothing, hidden)


def mixed(block, residual, layer, visible):
    """What a block of one row must give, from its two branches alone."""
    hidden, total = block.norm(residual), 0
    for silenced, kinds in zip(("conv1d_b", "conv1d"), layer, strict=True):
        for kind in kinds:
            places = torch.tensor(walk(kind, visible))
            y = one_way(block.mixer, silenced, hidden[:, places])
            total = total + torch.zeros_like(y).index_copy(1, places, y)
    return total / len(layer[0])


def expected(encoder, layers, video, dropped=None):
    """Normalised tokens and the tap in the middle, row by row."""
    sequence, rows = encoder.embed(video), []
    for i in range(len(video)):
        hidden = set() if dropped is None else set(dropped[i].nonzero().flatten().tolist())
        visible = [j for j in range(sequence.shape[1]) if j not in hidden]
        residual = sequence[i : i + 1, visible]
        for number, (block, layer) in enumerate(zip(encoder.layers, layers, strict=True)):
            residual = residual + mixed(block, residual, layer, visible)
            if number == DEPTH - 3:
                tap = encoder.norm(residual)
        rows.append((encoder.norm(residual), tap))
    return [torch.cat(x) for x in zip(*rows, strict=True)]


def test_every_order_is_written_out_here():
    assert LAYERS.keys() == SCAN_ORDERS.keys() == set(get_args(ScanOrder))


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("order", LAYERS)
def test_tokens_and_taps_are_those_of_the_index_lists(make, order, masked):
    encoder, video, dropped = make(order), clip(), masks() if masked else None
    with torch.no_grad():
        features = encoder(video, dropped, with_taps=True)
        tokens, tap = expected(encoder, LAYERS[order], video, dropped)
    torch.testing.assert_close(features.tokens, tokens[:, 1:], **EXACT)
    torch.testing.assert_close(features.taps[0], tap, **EXACT)
    if order != "spatial":
        other = expected(encoder, LAYERS["spatial"], video, dropped)[0][:, 1:]
        assert (features.tokens - other).abs().max() > 1e-3


@pytest.mark.parametrize("way", ["plain", "checkpointed", "pieces"])
def test_gradients_are_those_of_the_index_lists(make, way):
    encoder = with_all_kinds(
        make(
            "spatial",
            num_checkpointed=0 if way == "plain" else DEPTH,
            piece_length=3 if way == "pieces" else 99,
        )
    )
    video, dropped = clip(), masks()
    wanted = [encoder.cls_token, encoder.pos_embed, *encoder.layers.parameters()]
    tokens = encoder(video, dropped).tokens, expected(encoder, ALL_KINDS, video, dropped)[0][:, 1:]
    gradients = [torch.autograd.grad(x.sin().sum(), wanted) for x in tokens]
    for actual, right in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, right, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("order", LAYERS)
def test_stills_have_one_order(make, spatial, order):
    encoder = make(order)
    with torch.no_grad():
        assert torch.equal(encoder(image := clip(1)).tokens, spatial(image).tokens)


def test_a_temporal_block_is_the_spatial_one_on_permuted_tokens():
    block = BiMambaBlock(12, 4, 4, 2)
    residual = torch.randn(2, 1 + STEPS * PATCHES, 12)
    path = temporal_path(STEPS, PATCHES, CPU)
    scans = TEMPORAL.scans(path, "spatial")
    with torch.no_grad():
        out, inner = block(residual, scans), block(path.apply(residual))
    torch.testing.assert_close(out, path.undo(inner), rtol=0, atol=1e-6)
    assert not torch.allclose(out, block(residual), atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_runs_every_order(monkeypatch, backend):
    order = BlockOrder(("spatial",), ("spatial", "temporal"))  # a path both ways, one in one way
    block = BiMambaBlock(4, 2, 2, 1)
    residual = torch.randn(2, 5, 4, requires_grad=True)
    scans = order.scans(temporal_path(2, 2, CPU), "spatial")
    u, a = torch.empty(2, 4, 5), torch.empty(4, 2)
    if backend == "triton":
        pytest.importorskip("triton")
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    if why := BACKENDS[backend].module.why_not(u, a):
        pytest.skip(why)
    results = []
    for name in (backend, "reference"):
        monkeypatch.setenv("VMM_SCAN_BACKEND", name)
        out = block(residual, scans)
        results.append((out, *torch.autograd.grad(out.square().sum(), [residual, block.mixer.D])))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("order", "permutations"),
    [("spatial", 0), ("temporal", 2), ("half_spatial_then_temporal", 2), ("alternating", 4),
     ("st_v1", 10), ("st_v2", 10)],
)  # fmt: skip
def test_layers_of_one_order_permute_once(make, monkeypatch, order, permutations):
    encoder, calls = make(order), []
    take = scan_order._take
    monkeypatch.setattr(scan_order, "_take", lambda *x: calls.append(1) or take(*x))
    with torch.no_grad():
        encoder(clip())
    assert len(calls) == permutations


@pytest.mark.parametrize("order", LAYERS)
def test_long_videos_are_exact(make, order):
    encoder, video = make(order, piece_length=5), clip(7, 1)
    frames = [video[0, :3], video[0, 3:]]
    found = encode_long_video(encoder, frames, 7, keep_tokens=True)
    with torch.no_grad():
        features = encoder(video, keep_temporal=True)
    torch.testing.assert_close(found.tokens, features.tokens[0], **EXACT)
    torch.testing.assert_close(found.per_step, features.pooled[0], **EXACT)


@pytest.mark.slow
def test_orders_are_traced_whole():
    encoder = VideoMamba(**SIZES | {"depth": 3}).eval()
    encoder.block_orders = [TEMPORAL, ST_V1, ST_V2]
    video = clip()
    try:
        compiled = torch.compile(encoder, backend="aot_eager", fullgraph=True)
        tokens, want = compiled(video).tokens, encoder(video).tokens
        torch.testing.assert_close(tokens, want, **EXACT)
        leaf = encoder.pos_embed
        gradients = [torch.autograd.grad(x.sin().sum(), leaf)[0] for x in (tokens, want)]
        torch.testing.assert_close(*gradients, **EXACT)
        encoder.requires_grad_(False)
        shapes = {"video": {0: torch.export.Dim("batch")}}
        program = torch.export.export(encoder, (video,), dynamic_shapes=shapes)
        torch.testing.assert_close(program.module()(video[:1]).tokens, want[:1], **EXACT)
    finally:
        torch._dynamo.reset()


def test_paths_are_made_once_and_serve_everybody():
    scan_order._kept_path.cache_clear()
    with FakeTensorMode():
        temporal_path(5, 3, CPU)
    with torch.inference_mode():
        path = temporal_path(5, 3, CPU)
    assert temporal_path(5, 3, CPU) is path
    assert type(path.rows) is torch.Tensor and not path.rows.is_inference()
    x = torch.randn(1, 16, 2, requires_grad=True)
    path.apply(x).sum().backward()
    assert torch.equal(path.undo(path.apply(x)), x) and x.grad.eq(1).all()


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match="scan_order 'zigzag' is not known; choose one of spatial"):
        VideoMamba(**SIZES, scan_order="zigzag")
    encoder = VideoMamba(**SIZES, scan_order="temporal")
    dropped = torch.zeros(2, 1 + 4 * PATCHES, dtype=torch.bool)
    with pytest.raises(ValueError, match="draw the mask for 3 steps of 4 patches"):
        encoder(clip(), dropped)
