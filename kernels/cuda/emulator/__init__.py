"""Runs compiled CUDA kernels on the CPU, without a GPU.

How it works, from top to bottom:

1. numba-cuda types a kernel and lowers it to LLVM IR, exactly as it does for a GPU (`compile_ir`).
2. `machine.py` retargets that text to this CPU. What is left of the GPU are calls to intrinsics:
   "which thread am I", "wait at the barrier", "give me the value of another lane". `runtime.py`
   and `instructions.py` define them over one record that NumPy owns; `bounds.py` puts a check
   before each access to memory; llvmlite compiles the whole to machine code, which is kept on
   disk: the next process neither types nor compiles, it loads.
3. In a kernel without barriers or shuffles no thread waits for another: `nv_block` runs them one
   after the other, in a compiled loop around the kernel.
4. A kernel with barriers runs every thread of a block as a *fiber*: a stack of its own, and
   fifteen instructions (`nv_switch`) that leave one stack and continue on another. A thread
   runs until it must wait; it writes down what it waits for and switches back to the scheduler.
5. `scheduler.py`, in Python (compiled by Numba), takes one warp after the other and resumes each of
   its threads. Where all lanes wait at the same shuffle, vote or matrix product, they get their
   answers, and the warp goes on: up to a barrier, before the next warp has done anything. When all
   warps wait at the same barrier, the block goes on; else the barrier is divergent, an error.
6. A `while` loop may wait for what another thread writes. `loops.py` puts a call at the end of
   each round, and a thread that has gone round a thousand times gives way. In a kernel that has
   such loops but no barriers, threads run one after the other as in 3; one that gives way keeps its
   stack, and the next one gets another. Who waits is told by his stack, which looks as it did
   before, and a loop without end by all stacks and all memory (`progress.py`), or by LLVM, where
   nothing leads out of it. No loop that counts or sums is one, however long.
7. `workers.py` shares the blocks of a launch between workers, one per core where that pays, each
   with a state and shared memory of its own. Ten times a second it returns to Python, which hears
   Ctrl-C then; but only between blocks, barriers and rounds of `while` loops. No result depends on
   how many workers there are, unless blocks race, or add floats with atomics: a GPU promises no
   order for these either.

So of a block one thread runs at a time, in an order of warps and lanes that we choose: `with
schedule("reverse"): ...`. A correct kernel gives the same bits in every order; a kernel that forgot
a barrier does not.

What is caught, each with the name of the kernel and of the block: an access outside all arrays, by
the array that is nearest; 128 bits at an address that is not a multiple of 16; a divergent barrier;
a loop without end; shared memory that is read before it is written (it is filled with NaN before
each block); blocks, grids, shared and local memory that no GPU has. What it cannot see: an index
that leaves one array and hits another, or a row that runs into the next; whatever happens inside
local and constant arrays; the code after NVVM's optimiser and ptxas, the GPU's memory model,
timing. A `for` that only fills memory becomes one call of `memset`, which is not checked before it
runs: what it does beside an array shows in the guards around it, if it is memory.py's or shared,
else it does not.
"""

import platform

if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
    raise RuntimeError(
        "the CUDA emulator runs on Linux x86-64 only (its thread switch is written in that "
        f"machine's instructions), and this is {platform.system()} {platform.machine()}"
    )

from .machine import CC
from .workers import launch, schedule, specialisations

__all__ = ["CC", "launch", "schedule", "specialisations"]
