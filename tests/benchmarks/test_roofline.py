import json
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from benchmarks import roofline
from benchmarks.kernel_cases import KERNELS, SHAPES, Shape, operators

TINY = Shape("tiny", 1, 40, 9)
H100 = roofline.peak_of("NVIDIA H100 80GB HBM3")


def run_once(call):
    call()
    return 1e-3


def test_every_kernel_belongs_to_an_operator():
    assert [name for names in operators().values() for name in names] == list(KERNELS)
    assert operators()["both directions, forward"] == [
        "both directions, forward 1", "both directions, forward 2",
    ]  # fmt: skip


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels are not interpreted")
@pytest.mark.parametrize("name", operators())
def test_operators_are_launched_as_they_are_timed(name, monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    found = KERNELS[operators()[name][0]].prepare(torch.float32, TINY, "cpu")()
    tensors = [x for x in (found if isinstance(found, tuple) else (found,)) if x is not None]
    assert tensors and {x.device.type for x in tensors} == {"cpu"}
    assert all(bool(x.isfinite().all()) for x in tensors)


def test_a_row_is_a_time_beside_what_bytes_and_operations_allow():
    shape = SHAPES[0]
    elements = shape.batch * shape.channels * shape.length
    row = roofline.row_of("convolution, forward", "bfloat16", shape, 1e-3, H100)
    assert row["us"] == 1000 and row["MB moved"] == elements * 3 * 2 / 1e6
    assert row["GB/s"] == pytest.approx(row["MB moved"])  # in a millisecond
    assert row["floor of"] == "bytes"
    assert row["floor_us"] == pytest.approx(1e6 * elements * 3 * 2 / 3.35e12)
    assert row["to floor"] == pytest.approx(1000 / row["floor_us"])
    assert row["bandwidth, %"] == pytest.approx(100 * row["floor_us"] / 1000)
    both = roofline.row_of("both directions, forward", "float32", shape, 1e-3, H100)
    assert both["MB moved"] == pytest.approx(elements * 4 * (2 + 4 + 2 + 2 * 16 / 64) / 1e6)
    assert both["GFLOP"] == pytest.approx(2 * elements * 2 * 7 * 16 / 1e9)
    # A power of two per state update of both halves, eight cycles each.
    special = elements * 2 * 16 * 8 / (4 * 132 * 32 * 1.98e9)
    assert both["floor of"] == "special" and both["floor_us"] == pytest.approx(1e6 * special)


@pytest.mark.parametrize(
    ("name", "bandwidth"),
    [
        ("NVIDIA A100-SXM4-80GB", 2.04e12),
        ("NVIDIA H200", 4.8e12),
        ("NVIDIA B200", 8.0e12),
        ("AMD Instinct MI300X", 5.3e12),
        ("NVIDIA GeForce RTX 4090", None),
    ],
)
def test_peak_rates_are_those_of_the_name(name, bandwidth):
    gpu = roofline.peak_of(name, 100)
    assert (gpu and gpu.bandwidth) == bandwidth and (gpu is None or gpu.schedulers == 400)


def test_a_card_with_less_than_it_should_have_is_named():
    (one,) = roofline.notes_on("Some GPU", None, 1e12)
    assert "no peak rates of Some GPU" in one
    assert len(roofline.notes_on("NVIDIA H100 80GB HBM3", H100, 3e12)) == 2
    assert "another card of that name" in roofline.notes_on("NVIDIA H100 PCIe", H100, 1.8e12)[-1]


@pytest.mark.parametrize("card", ["NVIDIA H200", "Some GPU"])
def test_the_page_has_every_operator_at_every_shape(card, tmp_path, monkeypatch):
    """On a card that is not there: the clock and the inputs are those of the test."""
    kernels = {name: x._replace(prepare=lambda *of: print) for name, x in KERNELS.items()}
    measure = partial(roofline.measure, seconds_of=lambda call: 1e-3)
    for name, value in {"KERNELS": kernels, "measure": measure, "_COPIED": 2**20}.items():
        monkeypatch.setattr(roofline, name, value)
    monkeypatch.setattr(roofline, "gpu_seconds", run_once)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *of: card)
    properties = SimpleNamespace(multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda *of: properties)
    monkeypatch.setattr(roofline, "copy_of", lambda size: print)
    monkeypatch.setattr(sys, "argv", ["roofline", "--short", "--output", str(tmp_path)])
    assert roofline.main() == 0
    (path,) = tmp_path.glob("roofline_*_short.json")
    rows = json.loads(path.read_text("utf-8"))["rows"]
    assert rows[-1]["operator"] == "copy" and rows[-1]["GB/s"] == pytest.approx(2**20 / 1e6)
    assert [(row["operator"], row["shape"]) for row in rows[:-1]] == [
        (name, shape.name) for name in operators() for shape in SHAPES
    ]
    known = card == "NVIDIA H200"
    assert all(("to floor" in row) == known for row in rows[:-1])
    assert ("no peak rates" in path.with_suffix(".md").read_text("utf-8")) != known


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(root, tmp_path):
    command = [sys.executable, "-m", "benchmarks.roofline", "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 2 and "finds no GPU here" in done.stderr
    assert list(tmp_path.iterdir()) == []
