import json
import math
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from benchmarks import compiling, films, ggml, scan_cases, step
from benchmarks.block import Recorder, is_product, is_scan
from vmm.models.mamba import BiMambaBlock
from vmm.ops.scan.selective_scan import selective_scan

pytestmark = pytest.mark.slow

NAMES = ["scan", "block", "compiling", "decode", "encoder", "export", "long_video", "rerank"]
NAMES += ["collection", "conv", "estimate", "loading", "opening", "step"]
MIB = 2**20


@pytest.fixture(scope="module")
def results(tmp_path_factory, root):
    folder = tmp_path_factory.mktemp("results")
    program = [sys.executable, str(Path(__file__).parent / "smallest.py"), str(folder)]
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(
        program, cwd=root, env=environment, capture_output=True, text=True, timeout=540
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture
def report(results):
    def load(name):
        (path,) = results.glob(f"{name}_*.json")
        assert path.stem.endswith("_short")
        for suffix in (".md", ".png"):
            assert path.with_suffix(suffix).stat().st_size > 500
        return json.loads(path.read_text("utf-8"))

    return load


@pytest.mark.parametrize("name", NAMES)
def test_a_report_says_when_where_and_what(report, name):
    result = report(name)
    assert {"date", "hardware", "versions", "settings", "notes", "bars", "rows"} == set(result)
    assert {"cpu", "capability", "threads"} <= set(result["hardware"])
    assert {"python", "torch", "numpy"} <= set(result["versions"])
    assert result["hardware"]["threads"] == 1
    assert result["rows"]
    for bar in result["bars"]:
        assert math.isfinite(bar["measured"]) and isinstance(bar["met"], bool)


def test_exported_files_agree_with_the_model(report):
    rows = report("export")["rows"]
    compared = {row["format"]: row["difference"] for row in rows if "difference" in row}
    assert compared.keys() == {"onnx", "pt2"} and max(compared.values()) < 1e-5
    assert len({row["variant"] for row in rows if "variant" in row}) == 4


def test_a_step_holds_its_floor(report):
    rows = report("step")["rows"]
    assert [row["stage"] for row in rows] == [1, 2]
    for row in rows:
        assert row["products_s"] > 0 and row["scan_s"] > 0
        assert row["step_to_floor"] == row["step_s"] / (row["products_s"] + row["scan_s"])


@pytest.mark.parametrize("stage", [1, 2])
def test_the_floor_of_a_step_is_all_of_its_scans_and_attention(stage, tmp_path, monkeypatch):
    found = {}

    def replay(recorder, wanted):
        found[wanted] = [str(call[0]) for call in recorder.calls if wanted(call[0])]

    monkeypatch.setattr(Recorder, "replay", replay)
    step.calls_of(step.Case("small", stage, 16, 3, 2, 32, 2, (32, 3, 2), (32, 2)), tmp_path)
    scans = Counter(found[is_scan])
    depth = 3
    assert scans["vmm.bidirectional_scan.default"] == depth == scans["vmm.causal_conv1d.default"]
    # What stage 1 aligns lies before the last mixer.
    assert scans["vmm.bidirectional_scan_backward.default"] == depth - (stage == 1)
    products = Counter(found[step.is_product])
    assert products["aten.mm.default"] > 3 * depth
    layer = "aten._native_multi_head_attention.default" if stage == 1 else "aten.bmm.default"
    assert products[layer] >= 2


def test_every_scan_is_timed_and_right(report):
    result = report("scan")
    errors = [row for row in result["rows"] if row["task"] == "error"]
    names = {row["variant"] for row in errors if row["length"] == 9}
    assert {"vmm cpu", "vmm chunked", "vmm reference", "transformers"} <= names
    assert {row["length"] for row in errors} == {9, 18}
    for row in errors:
        assert all(0 <= row[key] < 1e-5 for key in ("output", "u", "A", "delta_bias"))
    timed = {
        (r["task"], r["what"], r["batch"], r["dtype"], r["kept"], r["variant"])
        for r in result["rows"]
        if r["task"] != "error" and 0 < r["ms"] <= r["median_ms"]
    }
    for what in ("forward", "forward+backward"):
        for batch in (1, 2):
            assert ("one direction", what, batch, "float32", False, "vmm cpu") in timed
            assert ("both directions", what, batch, "float32", False, "vmm, one call") in timed
        assert ("one direction", what, 1, "bfloat16", False, "vmm cpu") in timed
        assert ("one direction", what, 1, "float32", True, "transformers") in timed
    assert any("extra_mib" in row for row in result["rows"])


def test_every_convolution_is_timed(report):
    timed = {
        (row["what"], row["dtype"], row["length"], row["variant"])
        for row in report("conv")["rows"]
        if 0 < row["ms"] <= row["median_ms"]
    }
    for variant in ("vmm cpu", "PyTorch", scan_cases.COPY):
        for what in ("forward", "forward+backward"):
            for dtype in ("float32", "bfloat16"):
                assert {(what, dtype, n, variant) for n in (9, 18)} <= timed


def test_the_parts_of_a_block_are_timed(report):
    rows = report("block")["rows"]
    ordered = [row for row in rows if "scan order" in row]
    assert {row["scan order"] for row in ordered} == {"spatial", "temporal", "st_v1", "st_v2"}
    assert all(row["permutation_ms"] > 0 for row in ordered)
    rows = [row for row in rows if row not in ordered]
    assert {row["precision"] for row in rows} >= {"fp32", "bf16 autocast"}
    assert {(row["width"], row["pass"]) for row in rows} == {
        (width, what) for width in ("Ti", "M") for what in ("forward", "forward+backward")
    }
    assert all(min(row["block_ms"], row["products_ms"], row["scan_ms"]) > 0 for row in rows)


def test_compiled_layers_are_timed_beside_the_same_as_written(report):
    rows = {row["variant"]: row for row in report("compiling")["rows"]}
    assert rows.keys() == {compiling.WRITTEN, compiling.COMPILED}
    assert rows[compiling.COMPILED]["first_s"] > 10 * rows[compiling.COMPILED]["s"] > 0


def test_every_encoder_is_timed(report):
    result = report("encoder")
    names = {row["variant"] for row in result["rows"]}
    assert len(names) == 6
    whole = {row["variant"] for row in result["rows"] if row["whole"]}
    assert whole == {name for name in names if name.split(",")[0].endswith("-Ti")}
    assert all(row["seconds"] > 0 for row in result["rows"])
    assert "times the seconds of whole runs" in result["notes"][0]


def test_decoders_layouts_and_the_loader_are_timed(report):
    rows = report("decode")["rows"]
    decoders = {row["decoder"]: row for row in rows if "decoder" in row}
    assert {"vmm", "full decode", "those packets, decoded only"} <= set(decoders)
    assert decoders["vmm"]["to vmm"] == 1 and all(row["ms"] > 0 for row in decoders.values())
    layouts = [row["layout"] for row in rows if "layout" in row]
    assert layouts == ["mp4, 90p, GOP 8", "mp4, 256p, GOP 8", "JPEG pictures, 256p"]
    loaders = [row for row in rows if "workers" in row]
    assert [row["clip"] for row in loaders] == [layouts[0], layouts[-1]]
    for row in loaders:
        for what in ("loader", "one_process", "decoding"):
            assert row[f"{what}_clips_per_s"] > 0
        assert row["efficiency"] == row["one_process_cpu_ms"] / row["loader_cpu_ms"]
    sent = {row["sent as"]: row["ms"] for row in rows if "sent as" in row}
    assert len(sent) == 3 and min(sent.values()) > 0


def test_the_steps_of_loading_a_clip_make_up_its_time(report):
    rows = report("decode")["rows"]
    shares = [row for row in rows if "all, ms" in row]
    assert [row["clip"] for row in shares] == [row["layout"] for row in rows if "layout" in row]
    for row in shares:
        steps = {name: share for name, share in row.items() if name.endswith(", %")}
        assert len(steps) == 5 and min(steps.values()) > 0
        assert abs(sum(steps.values()) - 100) < 1e-6
    ways = [row for row in rows if "by FFmpeg" in row]
    assert len(ways) == len(shares)
    assert all(0 < row["mean difference"] < row["largest"] <= 255 for row in ways)


def test_long_videos_equal_one_pass(report):
    result = report("long_video")
    rows = [row for row in result["rows"] if "variant" in row]
    exact = [r for r in rows if r["variant"] == "vmm, in pieces" and "error" in r]
    assert exact and all(row["error"] < 1e-5 for row in exact)
    assert {row["frames"] for row in result["rows"] if "frames" in row} == {8, 20}
    assert len(result["bars"]) == 5


def test_films_are_read_from_their_files_beside_a_plain_decode(report):
    result = report("long_video")
    rows = {(row["film"], row["length_s"]): row for row in result["rows"] if "film" in row}
    read, plain, encoded = films.READ, films.PLAIN, films.ENCODED
    assert rows.keys() == {(read, 10), (plain, 10), (encoded, 10), (read, 20), (plain, 20)}
    assert {key: row["looked_at"] for key, row in rows.items()} == {
        (read, 10): 10, (plain, 10): 300, (encoded, 10): 10, (read, 20): 20, (plain, 20): 600,
    }  # fmt: skip
    assert all(row["ms_per_frame"] > 0 and row["peak_gib"] > 0 for row in rows.values())


def test_memory_is_what_a_call_needs(results, report):
    report("scan")
    extra, none, peak = json.loads((results / "memory.json").read_text("utf-8"))
    assert 47 * MIB < extra < 51 * MIB
    assert abs(none) < 2 * MIB
    assert peak > 256 * MIB


def test_two_calls_with_flips_equal_one_call():
    scans, inputs = scan_cases.two_directions(32, 13, 2)
    inputs = [x * torch.linspace(0.5, 1.5, 13) if x.dim() == 3 else x for x in inputs]
    # The second half of a published block computes delta, B and C on flipped tokens.
    flipped = [x.flip(-1) if i in (8, 10, 11) else x for i, x in enumerate(inputs)]
    one = scans[scan_cases.ONE_CALL](*inputs)
    two = scans[scan_cases.TWO_CALLS](*flipped)
    torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


def test_ggml_scans_the_inputs_of_the_others(monkeypatch):
    if ggml.why_not():
        pytest.skip(ggml.why_not())
    case = scan_cases.Case(scan_cases.ONE, scan_cases.FORWARD, 64, 3)
    running, inputs = scan_cases.calls(case, 11, {})
    u, delta, a, b, c, _, _, bias = inputs
    expected = selective_scan(u, delta, a, b, c, delta_bias=bias, delta_softplus=True)
    torch.testing.assert_close(running[ggml.NAME]()[0], expected, rtol=1e-5, atol=1e-5)
    training = case._replace(what=scan_cases.TRAINING)
    assert ggml.NAME not in scan_cases.calls(training, 11, {})[0]
    monkeypatch.setattr(ggml, "selective_scan", lambda *x, **y: torch.zeros(2, 8, 5))
    ggml.why_not.cache_clear()
    assert ggml.why_not().endswith("gives other numbers")
    ggml.why_not.cache_clear()


def test_the_floor_counts_every_tensor_once():
    inputs = scan_cases.make_inputs(64, 11, 3)
    with_length = [x for x in inputs if x.dim() == 3]
    once = sum(x.numel() * 4 for x in with_length)
    output = inputs[0].numel() * 4
    case = scan_cases.Case(scan_cases.ONE, scan_cases.FORWARD, 64, 3)
    assert scan_cases.least_bytes(case, 11, 4) == once + output
    case = scan_cases.Case(scan_cases.ONE, scan_cases.TRAINING, 64, 3)
    assert scan_cases.least_bytes(case, 11, 4) == 3 * once + 2 * output


def test_a_block_is_taken_apart_into_its_operations():
    block = BiMambaBlock(32, 16, 4, 2)
    with Recorder() as recorder:
        block(torch.randn(1, 9, 32)).sum().backward()
    functions = [call[0] for call in recorder.calls]
    assert sum(map(is_product, functions)) == 18  # six layers: output, two gradients
    named = {str(function) for function in functions if is_scan(function)}
    assert named == {
        "vmm.causal_conv1d.default",
        "vmm.causal_conv1d_backward.default",
        "vmm.bidirectional_scan.default",
        "vmm.bidirectional_scan_backward.default",
    }
    recorder.replay(is_scan)()
