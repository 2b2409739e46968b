"""CPU kernels compiled for ARM and run by QEMU: the process that emulates gets all memory by file.

The program that runs them knows nothing of kernels: it maps the file where it would lie in the
addresses that the arguments name, calls, and what was written is copied back.
"""

import ctypes
import functools
import subprocess

import numpy as np
from llvmlite import binding as llvm

from vmm.ops.kernels import cpu_blocks, cpu_kernel
from vmm.ops.kernels.cpu_values import Target

BASE, PAGE = 0x10_0000_0000, 1 << 16
DRIVER = f"""
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
void kernel(long long);
int main(int count, char **words) {{
    int file = open(words[1], O_RDWR);
    struct stat about;
    if (file < 0 || fstat(file, &about)) return 3;
    void *base = (void *){BASE}LL;
    void *got = mmap(base, about.st_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0);
    if (got != base) return 4;
    kernel({BASE}LL);
    return msync(base, about.st_size, MS_SYNC);
}}
"""
COMPILER, QEMU = "aarch64-linux-gnu-gcc", "qemu-aarch64"


def machine_of(cpu, triple="aarch64-linux-gnu"):
    """LLVM's description of an ARM CPU, such as neoverse-n1."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    target = llvm.Target.from_triple(triple)
    return target.create_target_machine(cpu=cpu, opt=3, reloc="pic", codemodel="small")


class ArmKernel(cpu_kernel.Kernel):
    """A kernel for an ARM CPU.

    Args:
        arm: Where it is run.
    """

    def __init__(self, arm, write, cpu, names, tail, options):
        plain = Target(arm.cpu, "", "plain")
        module = cpu_kernel.write_module(write, plain, names, tail, options, threads=None)
        machine = machine_of(arm.cpu)
        module.triple = machine.triple
        compiled = cpu_kernel.optimized(module, machine)
        arm.assemblies.append(machine.emit_assembly(compiled))
        self._arm, self._program = arm, arm.folder / f"kernel-{len(arm.assemblies)}"
        made = self._program.with_suffix(".o")
        made.write_bytes(machine.emit_object(compiled))
        command = [COMPILER, "-static", "-O1", arm.driver, made, "-o", self._program]
        subprocess.run(command, check=True)

    def run(self, arguments, items, work, scratch=0):
        """Run all items; numbers that lie in memory of tensors become places in the file."""
        values, used, end = [*arguments.values()], [], PAGE  # the arguments lie at the start
        for start, size in self._arm.memories.items():
            if any(start <= value < start + size for value in values):
                used.append((start, size, end))
                end += -(-size // PAGE) * PAGE

        def moved(value):
            found = [
                place + value - start for start, size, place in used if 0 <= value - start < size
            ]
            return BASE + found[0] if found else value

        table = np.array([items, BASE + end, 4 * scratch, *map(moved, values)], np.int64)
        memory = bytearray(end + 4 * scratch + PAGE)
        memory[: table.nbytes] = table.tobytes()
        for start, size, place in used:
            memory[place : place + size] = ctypes.string_at(start, size)
        file = self._program.with_suffix(".memory")
        file.write_bytes(memory)
        subprocess.run([QEMU, self._program, file], check=True, timeout=300)
        self._arm.runs += 1
        after = file.read_bytes()
        for start, size, place in used:
            ctypes.memmove(start, after[place : place + size], size)


class Arm:
    """Where kernels are compiled for an ARM CPU and run; ``monkeypatch`` brings them there.

    Args:
        cpu: LLVM's name.
        folder: For programs and their memory.
        monkeypatch: Of the test.
    """

    def __init__(self, cpu, folder, monkeypatch):
        self.cpu, self.folder, self.driver = cpu, folder, folder / "driver.c"
        self.driver.write_text(DRIVER)
        self.assemblies, self.memories, self._kept, self.runs = [], {}, [], 0
        compiled = functools.cache(lambda *words: ArmKernel(self, *words))
        monkeypatch.setattr(cpu_kernel, "_compiled", compiled)
        real = cpu_kernel.address_of

        def address_of(name, x, *dtypes):
            storage = x.untyped_storage()
            self.memories[storage.data_ptr()] = storage.nbytes()
            self._kept.append(x)  # or else others would get its addresses
            return real(name, x, *dtypes)

        for module in (cpu_kernel, cpu_blocks):
            monkeypatch.setattr(module, "address_of", address_of)
