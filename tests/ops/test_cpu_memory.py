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


GIVEN_BACK = """
import torch
from vmm.ops.tuning import cpu_memory
def pages():
    return int(open("/proc/self/statm").read().split()[1])
cpu_memory.keep_freed_memory()
kept = []
for _ in range(50):
    torch.ones(2**20)  # 4 MiB
    kept.append([torch.ones(2**20), torch.ones(2**10)])
for pair in kept:
    del pair[0]  # holes between small ones
before = pages()
cpu_memory.return_freed_memory()
print(before - pages())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_freed_memory_between_what_is_in_use_can_be_given_back():
    command = [sys.executable, "-c", GIVEN_BACK]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(result.stdout) > 45 * 2**10  # pages of 4 KiB: most of 50 times 4 MiB
