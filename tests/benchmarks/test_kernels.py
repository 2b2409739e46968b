import json
import os
import subprocess
import sys

import pytest

from benchmarks import kernels
from benchmarks.kernel_cases import KERNELS, SHAPES, programs

NVIDIA = """
        /*0000*/                   STL [R1], R20 ;
.L_x_1:
        /*0010*/                   MUFU.EX2 R3, R2 ;
.L_x_2:
        /*0020*/                   FFMA R1, R2, R3, R4 ;
        /*0030*/                   {} ;
        /*0040*/              @!P0 BRA `(.L_x_2) ;
        /*0050*/                   BRA `(.L_x_1) ;
        /*0060*/                   LDL.LU R3, [R1] ;
.L_x_3:
        /*0070*/                   BRA `(.L_x_3);
"""
AMD = """
\tscratch_store_dword off, v1, s32
.LBB0_1:
\tv_exp_f32_e32 v1, v2
.LBB0_2:
\tv_fma_f32 v1, v2, v3, v4
\t{}
\ts_cbranch_vccnz .LBB0_2
\ts_branch .LBB0_1
\t.vgpr_count:     96
"""
PROGRAM = """
import json, sys
from benchmarks import kernels
{before}
sizes = kernels.Sizes(((sys.argv[1], "bfloat16"),), (sys.argv[2],))
rows = list(kernels.compile_all(sizes))
bars = [bar.met for bar in kernels.bars(rows)]
kernels.tables(rows), kernels.draw(rows) if "error" not in rows[0] else None
print(json.dumps([rows[0], bars]))
"""


@pytest.fixture
def compile_one(root, tmp_path):
    """Compile a kernel in a process without the interpreter; give its row and which bars it met."""
    pytest.importorskip("triton")

    def run(target, name, before=""):
        plain = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
        plain["TRITON_CACHE_DIR"] = str(tmp_path)
        command = [sys.executable, "-c", PROGRAM.format(before=before), target, name]
        done = subprocess.run(command, cwd=root, env=plain, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        row, bars = json.loads(done.stdout)
        if "has no compiler for" in row.get("error", ""):
            pytest.skip(row["error"])
        return row, bars

    return run


def check(row, bars):
    assert "error" not in row, row["error"]
    assert row["spills_in_loops"] == 0 and bars == [True, True]
    assert 16 < row["registers"] <= 512 and row["instructions_per_step"] > row["special_per_step"]
    for shape in SHAPES:
        assert 0 < row[f"{shape.name}: floor_us"] < row[f"{shape.name}: estimate_us"]


@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
def test_a_kernel_compiles_without_spills_in_loops(compile_one, target):
    row, bars = compile_one(target, "convolution, forward")
    check(row, bars)
    assert row["special_per_step"] == 4 * 64 / row["threads"]  # exp and 1 / x, both directions


@pytest.mark.slow
def test_the_scan_compiles_without_spills_in_loops(compile_one):
    row, bars = compile_one("sm_90", "scan, forward")
    check(row, bars)
    assert 16 + 2 <= row["special_per_step"] <= 16 + 5  # a power of two for each state; softplus


def test_what_does_not_compile_is_a_bar_that_is_not_met(compile_one):
    before = "def fail(*of): raise RuntimeError('no registers')\n"
    before += "old = kernels.KERNELS['scan, forward']\n"
    before += "kernels.KERNELS['scan, forward'] = old._replace(prepare=fail)"
    row, bars = compile_one("sm_90", "scan, forward", before)
    assert row["error"] == "RuntimeError: no registers" and bars == [False, True]


@pytest.mark.parametrize(
    ("code", "plain", "spill"),
    [
        (NVIDIA, "FADD R1, R2, R3", "LDL R1, [R1+0x4]"),
        (AMD, "v_add_f32_e32 v1, v2, v3", "scratch_load_dword v1, off, s32"),
    ],
    ids=["NVIDIA", "AMD"],
)
def test_only_spills_in_loops_count(code, plain, spill):
    gpu_compiler = pytest.importorskip("benchmarks.gpu_compiler")
    for inside, wanted in ((plain, 0), (spill, 1)):
        loops, spills = gpu_compiler.loops_of(code.format(inside).splitlines())
        assert spills == wanted
        assert loops == (gpu_compiler.Code(3, 0),)


def test_spills_in_loops_are_a_bar_that_is_not_met():
    assert [bar.met for bar in kernels.bars([{"spills_in_loops": 3}])] == [True, False]


def test_a_program_is_a_block_of_channels_of_one_sample_and_direction():
    both = "both directions, forward 1"
    assert programs(both, SHAPES[0], 128) == 9 * 8 * 2
    assert programs("scan, forward", SHAPES[1], 128) == 3
    assert programs("convolution, forward", SHAPES[1], 128) == 6 * 785


def test_both_halves_together_move_what_the_operator_says():
    # vmm.ops.scan.triton counts numbers per element in float32, without kept states and sums.
    first, second = (KERNELS[f"both directions, forward {i}"].moved for i in (1, 2))
    kept = 2 * 16 / 64
    assert sum(first) + sum(second) == 8 + kept
