"""How the compiled scan runs: threads, processes, other CPUs, memory. Its numbers are checked with
those of the other backends in test_selective_scan.py."""

import faulthandler
import functools
import os
import re
import subprocess
import sys
import threading
import time
import traceback
import weakref

import pytest
import torch

from tests.ops.cpus import CPUS
from vmm.ops.kernels import cpu_kernel, cpu_threads
from vmm.ops.kernels.cpu_blocks import SPAN, Block
from vmm.ops.scan import cpu as scan_cpu
from vmm.ops.scan.bidirectional import Direction, bidirectional_scan
from vmm.ops.scan.cpu_kernels import TILE
from vmm.ops.scan.selective_scan import selective_scan, selective_scan_ref

# An LLVM CPU that every machine of this kind can run, and that has neither AVX-512 nor FMA.
compiled_scan = functools.partial(selective_scan, backend="cpu")
WIDTHS = {"u": "E", "delta": "E", "B": "N", "C": "N", "z": "E"}


def make_inputs(channels=200, length=64, batch=2):
    sizes = {"E": channels, "N": 16}
    g = torch.Generator().manual_seed(channels + length)
    inputs = {
        name: torch.randn(batch, length, sizes[width], generator=g).transpose(1, 2)
        for name, width in WIDTHS.items()
    }
    inputs["A"] = -torch.rand(channels, 16, generator=g) * 4
    inputs["D"], inputs["delta_bias"] = torch.randn(2, channels, generator=g)
    return inputs


def run(inputs, scan=compiled_scan):
    """Output and all gradients."""
    leaves = {name: x.detach().requires_grad_() for name, x in inputs.items()}
    out = scan(**leaves, delta_softplus=True)
    grad_out = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    return [out.detach(), *torch.autograd.grad(out, list(leaves.values()), grad_out)]


def assert_close(actual, expected, limit):
    for a, e in zip(actual, expected, strict=True):
        assert (a - e).abs().max() <= limit * e.abs().max()


@pytest.fixture
def asked(monkeypatch):
    """Names of what each walk over rows asks for ahead, with the rows after its last block."""
    found, real = [], Block.expect_next_block

    def spy(at, t, later, *names):
        there = {name for name in names if name in at.code.arguments}
        before = str(at.code.builder.module).count("llvm.prefetch")
        real(at, t, later, *names)
        after = str(at.code.builder.module).count("llvm.prefetch")
        assert after - before >= len(there)  # and a declaration of it
        found.append((there, later))

    monkeypatch.setattr(Block, "expect_next_block", spy)
    cpu_kernel._compiled.cache_clear()
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_rows_of_the_next_block_are_asked_for_ahead(dtype, asked):
    """Or else a scan waits for memory: twice as long on some CPUs."""
    run({name: x.to(dtype) for name, x in make_inputs(channels=32, length=5).items()})
    assert asked == [
        ({"u", "delta", "z", "out"}, SPAN),
        ({"u", "delta", "z", "d_out", "d_u", "d_delta", "d_z"}, -TILE),
    ]


def test_both_directions_ask_ahead_for_what_they_read_and_write(asked):
    x = make_inputs(channels=32, length=5)
    u, delta, a, b, c, d, z, bias = (
        x[name] for name in ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
    )
    direction = u, delta, a, b, c, d, bias
    scan_both(z, *direction, *direction)
    assert asked == [
        ({"u", "delta", "waiting"}, SPAN),
        ({"u_reverse", "delta_reverse", "other_reverse", "z", "out"}, SPAN),
    ]


@pytest.fixture
def set_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def scan_both(z, *directions):
    first, second = (Direction(*x) for x in (directions[:7], directions[7:]))
    return bidirectional_scan(first, second, z, delta_softplus=True, backend="cpu")


@pytest.mark.parametrize("both", [False, True])
def test_copies_live_until_the_kernel_has_run(both, monkeypatch):
    # Nothing here is channels-last, so that everything with a length has to be copied.
    inputs = {name: x.contiguous() for name, x in make_inputs(32, 40).items()}
    copies, kernels = [], []
    as_rows, run_kernel = scan_cpu.as_rows, scan_cpu._run

    def copying(x):
        rows = as_rows(x)
        copies.append(weakref.ref(rows))
        return rows

    def running(*arguments):
        kernels.append(len(copies))
        assert copies and all(copy() is not None for copy in copies)
        run_kernel(*arguments)
        copies.clear()

    monkeypatch.setattr(scan_cpu, "as_rows", copying)
    monkeypatch.setattr(scan_cpu, "_run", running)
    if not both:
        run(inputs)
        assert kernels == [5, 6]  # u, delta, B, C, z; and the gradient of the output
        return
    of_one = [inputs[name] for name in ("u", "delta", "A", "B", "C", "D", "delta_bias")]
    leaves = [x.detach().requires_grad_() for x in (inputs["z"], *of_one, *of_one)]
    scan_both(*leaves).sum().backward()
    assert kernels == [9, 6, 7]  # the gradient of the second takes the output of the first too


@pytest.mark.parametrize("channels", [20, 32])
def test_code_for_other_cpus_is_right_too(channels, monkeypatch):
    inputs = make_inputs(channels)
    expected = run({name: x.double() for name, x in inputs.items()}, selective_scan_ref)
    found = []
    for cpu in CPUS:
        monkeypatch.setenv("VMM_CPU", cpu)
        found.append(run(inputs))
        assert_close(found[-1], expected, 5e-6)
    kinds = {cpu_kernel._target(cpu).powers for cpu in CPUS}
    assert len({tuple(outs[0].flatten().tolist()) for outs in found}) >= len(kinds)  # other code


@pytest.mark.parametrize("batch", [1, 3])  # one sample is cut into groups of channels
def test_the_number_of_threads_does_not_change_the_result(batch, set_threads):
    inputs = make_inputs(batch=batch)
    results = []
    for threads in (1, 2, 3):
        set_threads(threads)
        results.append(run(inputs))
    for other in results[1:]:
        assert_close(other, results[0], 1e-6)
        assert torch.equal(other[0], results[0][0])


def test_large_scans_use_several_threads_and_small_ones_do_not(set_threads, monkeypatch):
    if cpu_threads.runtime() is None:
        pytest.skip("PyTorch does not use an OpenMP that is known here")
    teams, own, compiled = [], {}, cpu_kernel.compile_kernel

    def recorded(*arguments):
        kernel = compiled(*arguments)
        team = own.setdefault(kernel, kernel._team)

        def record(table, threads):
            teams.append(threads)
            team(table, threads)

        monkeypatch.setattr(kernel, "_team", record)
        return kernel

    monkeypatch.setattr("vmm.ops.scan.cpu.compile_kernel", recorded)
    set_threads(2)
    for length in (1, 64):
        compiled_scan(**make_inputs(length=length))
    assert teams == [2]


def test_several_python_threads_may_scan_at_once():
    inputs = make_inputs(channels=64, length=1000)  # long enough to run at the same time
    expected = run(inputs)
    results = []

    def work():
        for _ in range(5):
            results.append(run(inputs))

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert len(results) == 15
    for result in results:
        assert_close(result, expected, 1e-7)


def in_a_fork(function):
    """Give the number that a function returns in a fork of this process; a hang ends in a trace."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            faulthandler.dump_traceback_later(20, exit=True)
            os.write(writer, repr(function()).encode())
            status = 0
        except Exception:  # noqa: BLE001  the child must not go on with pytest
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as file:
        answer = file.read()  # ends when the child does
    assert os.waitpid(child, 0)[1] == 0
    return float(answer)


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
threaded = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@pytest.mark.smoke
@forks
@threaded
def test_a_forked_worker_can_scan():
    """Forward: PyTorch itself refuses gradients in a fork once its parent computed some."""
    expected = run(make_inputs())[0].sum().item()

    def work():
        torch.set_num_threads(1)  # as every DataLoader worker does
        return compiled_scan(**make_inputs(), delta_softplus=True).sum().item()

    assert in_a_fork(work) == pytest.approx(expected, rel=1e-4)


@forks
@threaded
def test_a_fork_scans_without_the_threads_of_its_parent(set_threads):
    set_threads(2)
    inputs = make_inputs()
    # Makes the team of threads that the fork does not have.
    expected = compiled_scan(**inputs, delta_softplus=True)

    def work():
        assert torch.get_num_threads() == 2
        return float(torch.equal(compiled_scan(**inputs, delta_softplus=True), expected))

    assert in_a_fork(work) == 1


@forks
@threaded
def test_nothing_is_forked_while_another_thread_compiles():
    begun, over = threading.Event(), []

    def compiling():
        with cpu_kernel._compiling:
            begun.set()
            time.sleep(0.3)
            over.append(True)

    other = threading.Thread(target=compiling)
    other.start()
    begun.wait()
    assert in_a_fork(lambda: float(bool(over) and cpu_kernel._compiling.acquire(timeout=5))) == 1
    other.join()
    assert cpu_kernel._compiling.acquire(timeout=5)
    cpu_kernel._compiling.release()


def test_inference_keeps_no_states(monkeypatch):
    inputs = make_inputs()
    kept = []

    def compile_kernel(write, arguments, *rest):
        kept.append(arguments["starts"] != 0)
        return cpu_kernel.compile_kernel(write, arguments, *rest)

    monkeypatch.setattr(scan_cpu, "compile_kernel", compile_kernel)
    compiled_scan(**inputs)
    inputs["A"].requires_grad_()
    compiled_scan(**inputs)
    with torch.no_grad():
        compiled_scan(**inputs)
    assert kept == [False, True, False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_channels_last_inputs_are_used_in_place(dtype, monkeypatch):
    inputs = {name: x.to(dtype) for name, x in make_inputs().items()}
    used = {}

    def compile_kernel(write, arguments, *rest):
        used.update(arguments)
        return cpu_kernel.compile_kernel(write, arguments, *rest)

    monkeypatch.setattr(scan_cpu, "compile_kernel", compile_kernel)
    selective_scan(**inputs, backend="cpu")
    # B and C are small: of bfloat16 there are copies.
    for name in WIDTHS if dtype == torch.float32 else ("u", "delta", "z"):
        assert used[name] == inputs[name].data_ptr(), name


def test_llvm_is_not_imported_before_it_is_needed():
    code = (
        "import sys, vmm.ops.scan.selective_scan, vmm.ops.conv.causal_conv\n"
        "print('llvmlite' in sys.modules)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "False"


def test_vectors_on_the_stack_do_not_straddle_cache_lines_and_rows_are_asked_for_ahead(monkeypatch):
    if cpu_kernel.target().powers != "avx512":
        pytest.skip("looks for the instructions of a CPU with AVX-512")
    found = []
    create = cpu_kernel.llvm.create_mcjit_compiler

    def record(module, machine):
        found.append(machine.emit_assembly(module))
        return create(module, machine)

    monkeypatch.setattr(cpu_kernel.llvm, "create_mcjit_compiler", record)
    cpu_kernel._compiled.cache_clear()
    rows = [torch.randn(1, 9, n).transpose(1, 2) for n in (32, 32, 16, 16)]
    selective_scan(rows[0], rows[1], -torch.rand(32, 16), *rows[2:], backend="cpu")
    (assembly,) = found
    assert re.search(r"andq\s+\$-64, %rsp", assembly) and "prefetch" in assembly
