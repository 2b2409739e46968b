"""Each test in a process of its own: what is set cannot be taken back."""

import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from vmm.ops.tuning import cpu_memory
{setting}
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(2**23)  # 32 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()  # the allocator needs a few rounds until a freed piece has room for the next tensor
print(faults())
"""


def run(setting):
    command = [sys.executable, "-c", FAULTS.format(setting=setting)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return result.stdout.split("\n")


@pytest.mark.skipif(sys.platform != "linux", reason="the default of glibc is tested")
def test_tensors_reuse_the_pages_of_freed_ones():
    *sentence, faults, _ = run("print(cpu_memory.keep_freed_memory())")
    if "kept" not in sentence[0]:
        pytest.skip(sentence[0])
    without = int(run("")[0])
    assert int(faults) < 1000 < 20 * 2000 < without


def test_other_systems_say_so():
    sentence, *_ = run("cpu_memory.sys.platform = 'win32'; print(cpu_memory.keep_freed_memory())")
    assert "no mallopt" in sentence
