"""What CPU kernels are compiled for in the tests: names for ``VMM_CPU``, "" is this one."""

import platform

from llvmlite import binding as llvm

PLAIN_CPU = "x86-64" if platform.machine() in ("x86_64", "AMD64") else "generic"
AVX2_CPU = "x86-64-v3"
CPUS = ["", PLAIN_CPU]
if llvm.get_host_cpu_features().get("avx2"):
    CPUS.insert(1, AVX2_CPU)
