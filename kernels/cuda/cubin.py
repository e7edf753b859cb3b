"""From a kernel to code for one kind of GPU, on any machine: no GPU and no driver is needed.

numba-cuda types the kernel and NVVM makes PTX of it; nvJitLink, which is ptxas in a library, makes
the cubin, the machine code that a GPU runs, and tells which resources it takes. All of it is kept
on disk; so a machine without a GPU can fill the folder of one that has it.
"""

import functools
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from . import cache
from ._numba import Kernel, compile_ptx, cuda

Signature = tuple[Any, ...]  # Numba types
ComputeCapability = tuple[int, int]

INSTALL = "pip install 'minidl[cuda13]' (minidl[cuda12] for a driver older than 580)"
_MATCHING = "pip install 'cuda-toolkit[nvvm,nvrtc,cudart]==13.0.*' 'nvidia-nvjitlink==13.0.*'"


class Resources(NamedTuple):
    """What a thread of a kernel takes, from ptxas; and instructions that are slow on most GPUs."""

    registers: int
    shared: int  # bytes of static shared memory, of the whole block
    stack: int  # bytes of local memory: arrays that are indexed by what is known only later
    spills: int  # bytes stored and loaded because the registers do not suffice
    f64: int  # instructions in float64
    divisions: int  # 64-bit integer divisions and remainders, some 100 instructions each


class Cubin(NamedTuple):
    """A kernel's machine code, and the name under which it is found there."""

    entry: str
    code: bytes
    resources: Resources


def compiled(kernel: Kernel, signature: Signature, cc: ComputeCapability) -> Cubin:
    """A kernel for these argument types and a compute capability: from disk, or compiled now.

    ValueError where it needs a newer GPU; RuntimeError, with the pip line, without the compilers.
    """
    if cc < kernel.min_cc:
        raise ValueError(
            f"{kernel.__name__}: needs compute capability {dotted(kernel.min_cc)} or newer, and "
            f"this GPU has {dotted(cc)}"
        )
    mark = cache.fingerprint(kernel)
    key = f"{mark} {signature} {cc} {toolkit()}"
    if mark and (known := cache.load("cubin", key)):
        return _unpacked(known)
    ptx = compile_ptx(kernel.function, signature, cc, mark)
    code, log = _linked(ptx, cc)
    entry = re.findall(r"\.visible \.entry (\w+)\(", ptx)[0]
    made = Cubin(entry, code, Resources(*_resources(log, ptx)))
    if mark:
        cache.store("cubin", key, _packed(made))
    return made


def dotted(cc: ComputeCapability) -> str:
    """(8, 0) as "8.0"."""
    return f"{cc[0]}.{cc[1]}"


@functools.cache
def toolkit() -> tuple[Any, ...]:
    """Versions of NVVM and nvJitLink. RuntimeError, with the pip line, where one is missing."""
    try:
        from cuda.bindings import nvjitlink

        return cuda.cudadrv.nvvm.NVVM().get_ir_version(), nvjitlink.version()
    except (ImportError, OSError, RuntimeError) as error:
        raise RuntimeError(
            f"CUDA kernels are compiled by NVVM and nvJitLink, and one is missing: {INSTALL}"
        ) from error


def _linked(ptx: str, cc: ComputeCapability) -> tuple[bytes, str]:
    """The cubin of a PTX text, and what ptxas says of it."""
    from cuda.bindings.nvjitlink import nvJitLinkError
    from cuda.core import Linker, LinkerOptions, ObjectCode

    options = LinkerOptions(arch=f"sm_{cc[0]}{cc[1]}", ptxas_options=["-v"])
    try:
        linker = Linker(ObjectCode.from_ptx(ptx.encode()), options=options)
        code = linker.link("cubin").code
    except nvJitLinkError as error:
        newer = "Unsupported .version" in str(error)
        hint = f"\nNVVM is newer than nvJitLink; these fit each other: {_MATCHING}" * newer
        raise RuntimeError(f"nvJitLink, for {options.arch}: {error}{hint}") from error
    return bytes(code), linker.get_info_log()


def _resources(log: str, ptx: str) -> Iterator[int]:
    """The numbers of Resources, in their order."""

    def total(pattern: str, text: str) -> int:
        return sum(map(int, re.findall(pattern, text)))

    yield total(r"Used (\d+) registers", log)
    # nvJitLink, unlike ptxas, does not tell it
    yield total(r"\.shared \.align \d+ \.b8 \w+\[(\d+)\]", ptx)
    yield total(r"(\d+) bytes stack frame", log)
    yield total(r"(\d+) bytes spill (?:stores|loads)", log)
    yield len(re.findall(r"^(?!\s*\.reg\b).*\.f64\b", ptx, re.M))
    yield len(re.findall(r"\b(?:div|rem)\.[su]64\b", ptx))


def _packed(cubin: Cubin) -> bytes:
    head = json.dumps([cubin.entry, cubin.resources])
    return head.encode() + b"\n" + cubin.code


def _unpacked(data: bytes) -> Cubin:
    head, _, code = data.partition(b"\n")
    entry, numbers = json.loads(head)
    return Cubin(entry, code, Resources(*numbers))
