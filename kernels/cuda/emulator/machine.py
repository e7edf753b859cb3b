"""From a kernel to machine code for this CPU, which is kept on disk for the next process."""

import ctypes
import functools
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import llvmlite.binding as ll
from numba import cfunc, types

from .. import cache
from .._numba import Kernel, captured, compile_ir
from . import halves, loops, scheduler, told
from .bounds import instrument
from .instructions import INSTRUCTIONS, PTX, without_hints
from .runtime import LOCAL, MAX_SHARED_ARRAYS, RUNTIME, numbered
from .scheduler import ALONE, CARRIED, FIBERS, GUARD

CC = (9, 0)  # the compute capability that emulated memory says it has
MAX_SHARED = 48 * 1024  # bytes a kernel may have without asking the driver for more
_LIBM = {"isfinited": "finite", "isinfd": "isinf", "isnand": "isnan"}  # where the names differ
_WAITS = ("nv.grid.sync", "nv.barrier", "nv.bar.", "nv.shfl", "nv.vote", "nv.match", "minidl_mma")


class LaunchError(ValueError):
    """A launch that no GPU would take."""


@dataclass(frozen=True, eq=False)
class Code:
    """A kernel for one set of argument types, as machine code for this CPU."""

    threads: int  # whether they wait for each other: ALONE, CARRIED, FIBERS
    arrays: list[tuple[int, int]]  # in shared memory: place and bytes of each
    dynamic: int  # where dynamic shared memory begins, 0 if there is none
    libm: dict[str, str]  # what it calls, and the name of that in libm
    image: bytes  # the object file
    together: bool = False  # whether its blocks wait for each other by grid.sync()
    sites: Any = ()  # what an instrument has to tell of it
    # under debug=True, what it raises by its codes: class, arguments, and function, file and line
    raises: dict[int, Any] | None = None
    # arrays on the device that it has by name: their addresses are in the code
    captured: dict[str, Any] = field(default_factory=dict)

    def pack(self) -> bytes:
        """All of it, to be stored."""
        about = self.threads, self.arrays, self.dynamic, self.libm, self.together, self.sites
        return json.dumps(about).encode() + b"\n" + self.image

    @classmethod
    def unpack(cls, data: bytes) -> "Code":
        """What `pack` packed."""
        about, _, image = data.partition(b"\n")
        threads, arrays, dynamic, libm, together, sites = json.loads(about)
        return cls(threads, arrays, dynamic, libm, image, together, sites)


class Instrument:
    """What is put into a kernel's IR to look at its accesses: their bounds, and no more."""

    lines = False  # whether the IR tells the lines of the source
    runtime = ""  # IR of what `before` puts calls of
    sites: Any = ()

    def before(self, text: str) -> str:
        """IR with more in it, before anything is inlined."""
        return text

    def after(self, text: str) -> str:
        """IR with more in it, when variables are in registers."""
        return instrument(text)


@functools.cache
def _machine() -> ll.TargetMachine:
    ll.initialize_native_target()
    ll.initialize_native_asmprinter()
    ll.initialize_native_asmparser()
    return ll.Target.from_default_triple().create_target_machine(
        cpu=ll.get_host_cpu_name(),
        features=ll.get_host_cpu_features().flatten(),
        opt=2,
        jit=True,
        codemodel="large",
    )


# ---- IR of a GPU becomes IR of this CPU


def _retarget(text: str) -> ll.ModuleRef:
    """Parse the IR of a kernel as if it had been made for this CPU."""
    text = re.sub("target triple.*", f'target triple = "{ll.get_default_triple()}"', text)
    text = re.sub("target datalayout.*", f'target datalayout = "{_machine().target_data}"', text)
    text = re.sub("^!nvvm.*", "", text, flags=re.M)  # or LLVM gives it a GPU's calling convention
    text = re.sub('^@"llvm.used".*', "", text, flags=re.M)
    # all is inlined; a function that says it is not would end the process as a broken module
    text = re.sub(
        "^define .*", lambda m: re.sub(" (noinline|optnone)\\b", "", m[0]), text, flags=re.M
    )
    text = text.replace('@"llvm.nvvm.', '@"nv.')  # LLVM reserves llvm.*; ours can have a body
    text = text.replace('@"cudaCGGetIntrinsicHandle"', '@"nv.grid.handle"')
    text = text.replace('@"cudaCGSynchronize"', '@"nv.grid.sync"')
    return ll.parse_assembly(text)


def _whole(texts: list[str], lines: bool) -> tuple[ll.ModuleRef, str]:
    """A kernel's module with its device functions in it, which are to be inlined, and its name."""
    module, *device_functions = map(_retarget, texts)
    (name,) = (
        f.name
        for f in module.functions
        if f.linkage is ll.Linkage.external and [*f.blocks] and "__exc_helper__" not in f.name
    )
    for function in device_functions:
        module.link_in(function)
    for f in module.functions:
        if [*f.blocks] and (f.name != name or lines):  # to know which argument is which
            f.add_function_attribute("alwaysinline")
    return module, name


def _shared_memory(kernel: Kernel, module: ll.ModuleRef) -> tuple[dict[str, int], dict[str, int]]:
    """Where each array in shared memory lies, with gaps between them, and the bytes of each.

    Dynamic arrays, of 0 bytes here, all begin at the same place behind the others, as on a GPU.
    """
    arrays = [v for v in module.global_variables if "_cudapy_smem" in v.name]
    size = _machine().target_data.get_abi_size
    sizes = {v.name: 0 if v.is_declaration else size(v.global_value_type) for v in arrays}
    if sum(sizes.values()) > MAX_SHARED:
        raise LaunchError(f"{kernel.__name__}: more than {MAX_SHARED} bytes of shared memory")
    if len(sizes) > MAX_SHARED_ARRAYS:
        raise ValueError(f"{kernel.__name__}: more than {MAX_SHARED_ARRAYS} shared arrays")
    places, end = {}, GUARD
    for name in sorted(sizes, key=lambda n: sizes[n] == 0):
        places[name] = end
        if sizes[name]:
            end += -(-sizes[name] // GUARD) * GUARD + GUARD
    return places, sizes


def _for_this_cpu(text: str, places: dict[str, int]) -> str:
    """The kernel's IR, as LLVM prints it, with shared memory and PTX put in their places."""
    text = re.sub(r"^@_cudapy_smem.*\n", "", text, flags=re.M)
    text += "@nv_shared = external addrspace(3) global [0 x i8], align 16\n"
    text = re.sub(
        r"@_cudapy_smem\w*",
        lambda m: f"getelementptr (i8, ptr addrspace(3) @nv_shared, i64 {places[m[0][1:]]})",
        text,
    )
    # an access of 128 bits must not crash where it would fail on a GPU: it is reported instead
    vector = r"^ +(?:%\S+ = )?(load|store) <[^>]*>[^,]*, ptr (%[^,]+), align 16"
    text = re.sub(
        vector,
        lambda m: (
            f"  call void @nv_aligned(ptr {m[2]}, i64 {int(m[1] == 'store')})\n"
            + m[0].removesuffix("16")
            + "1"
        ),
        text,
        flags=re.M,
    )
    used = {}

    def inline(m: re.Match[str]) -> str:
        result, ptx, args = m.groups()
        kinds = ", ".join(a.split()[0] for a in args.split(", ") if a)
        used[PTX[ptx]] = f"declare {result} @{PTX[ptx]}({kinds})\n"
        return f"call {result} @{PTX[ptx]}({args})"

    text = without_hints(text)
    known = "|".join(map(re.escape, PTX))
    text = re.sub(rf'call (\w+) asm (?:sideeffect )?"({known})", "[^"]*"\(([^)]*)\)', inline, text)
    return f"{text}declare void @nv_aligned(ptr, i64)\n" + "".join(used.values())


def _wrapper(entry: ll.ValueRef, inline: str) -> str:
    """IR of `nv_thread`, which calls the kernel with its arguments."""
    kinds = [str(a.type) for a in entry.arguments]
    place = "getelementptr (i8, ptr @nv_state, i64 {})"
    first = scheduler.STATE.fields["args"][1]  # type: ignore[index]
    loads = "".join(
        f"  %a{i} = load {kind}, ptr {place.format(first + 8 * i)}\n"
        for i, kind in enumerate(kinds)
    )
    passed = ", ".join(f"{kind} %a{i}" for i, kind in enumerate(kinds))
    return f"""
declare void @"{entry.name}"({", ".join(kinds)})
define void @nv_thread() {inline} {{
{loads}  call void @"{entry.name}"({passed})
  ret void
}}
"""


def _calls(kernel: Kernel, module: ll.ModuleRef) -> dict[str, str]:
    """The functions of libm that stand for what the kernel calls: `expf` for `__nv_expf`."""
    libm, found, unknown = ctypes.CDLL("libm.so.6"), {}, []
    for name in (f.name for f in module.functions if f.is_declaration):
        same = re.sub("^__nv_(fast_)?", "", name)
        same = _LIBM.get(same, same)
        if name.startswith("__nv_") and hasattr(libm, same):
            found[name] = same
        elif not name.startswith("llvm."):
            unknown.append(name.replace("nv.", "llvm.nvvm.", 1))
    if unknown:
        raise NotImplementedError(
            f"{kernel.__name__}: the emulator does not know {', '.join(unknown)} "
            "(add it to kernels/cuda/emulator/instructions.py)"
        )
    return found


def _optimize(module: ll.ModuleRef, level: int, kept: set[str]) -> None:
    """Let LLVM improve a module of which only some names are needed outside."""
    for value in (*module.functions, *module.global_variables):
        if not value.is_declaration and value.name not in kept:
            value.linkage = "internal"
    builder = ll.create_pass_builder(_machine(), ll.create_pipeline_tuning_options(level))
    builder.getModulePassManager().run(module, builder)


def _inline(module: ll.ModuleRef) -> None:
    """Put functions that are always inlined where they are called, and improve nothing."""
    passes = ll.create_new_module_pass_manager()
    passes.add_always_inliner_pass()
    passes.run(module, ll.create_pass_builder(_machine(), ll.create_pipeline_tuning_options(0)))


def _emit(module: ll.ModuleRef, kept: set[str]) -> bytes:
    """The object file of a module."""
    _optimize(module, 2, kept)
    return _machine().emit_object(module)


def _threads(module: ll.ModuleRef, text: str) -> int:
    """Whether the threads of a kernel wait for each other, and where."""
    if any(f.name.startswith(_WAITS) for f in module.functions):
        return FIBERS
    return CARRIED if "@nv_turn(i64 0" in text else ALONE


def build(
    kernel: Kernel, signature: tuple[types.Type, ...], tool: Instrument | None = None
) -> Code:
    """Compile a kernel. NotImplementedError for what the emulator does not know."""
    tool = tool or Instrument()
    raises: dict[int, Any] | None = {} if kernel.debug else None
    module, name = _whole(compile_ir(kernel.function, signature, tool.lines, raises), tool.lines)
    places, sizes = _shared_memory(kernel, module)
    text = told.noted(_for_this_cpu(str(module), places))
    if 8 * sum(map(int, re.findall(r" alloca \[(\d+) x ", text))) > LOCAL:
        raise ValueError(f"{kernel.__name__}: local arrays beyond {LOCAL} bytes a thread")
    text = loops.polled(text)
    module = ll.parse_assembly(tool.before(text))
    threads = _threads(module, text)
    wrapper = _wrapper(module.get_function(name), "noinline" if tool.lines else "alwaysinline")
    ours = RUNTIME + INSTRUCTIONS + told.TOLD + tool.runtime + wrapper
    for known in (halves.definitions(text), ours):
        module.link_in(ll.parse_assembly(known))
    libm = _calls(kernel, module)
    if ptx := {p for p in re.findall(r' asm [^"]*"([^"]*)"', str(module)) if "pushq" not in p}:
        raise NotImplementedError(f"{kernel.__name__}: the emulator cannot run {', '.join(ptx)}")
    if threads == FIBERS:
        _inline(module)
        module = ll.parse_assembly(numbered(str(module)))
    # variables go to registers
    _optimize(module, 1, {*_EXPORTS[threads], "nv_check", "nv_yield"})
    module = ll.parse_assembly(tool.after(loops.hopeless(str(module))))
    image = _emit(module, {*_EXPORTS[threads]})
    arrays = [(places[n], sizes[n]) for n in places if sizes[n]]
    dynamic = max((places[n] for n in places if not sizes[n]), default=0)
    last = "@nv.grid.handle(" in text, tool.sites, raises, captured(kernel.function)
    return Code(threads, arrays, dynamic, libm, image, *last)


# ---- kept on disk, and loaded


@functools.cache
def _here() -> str:
    """What this machine code is good for: this emulator, on this CPU."""
    found = hashlib.sha256(repr(cache.versions()).encode())
    for source in sorted(Path(__file__).parents[1].glob("*/*.py")):
        found.update(source.read_bytes())
    cpu = ll.get_host_cpu_name(), ll.get_host_cpu_features().flatten()
    return f"{found.hexdigest()} {cpu}"


def code(
    kernel: Kernel, signature: tuple[types.Type, ...], tool: type[Instrument] = Instrument
) -> Code:
    """A kernel's machine code, from the disk or compiled now."""
    if kernel.debug or (told := cache.fingerprint(kernel)) is None:  # exceptions are not written
        return build(kernel, signature, tool())
    # with lines, where the kernel stands matters too
    source = kernel.function.__code__
    where = (source.co_filename, source.co_firstlineno) if tool.lines else ""
    key = f"{told} {signature} {_here()} {tool.__name__} {where}"
    if (data := cache.load("x86", key)) is not None:
        return Code.unpack(data)
    made = build(kernel, signature, tool())
    cache.store("x86", key, made.pack())
    return made


def _compile(function: Callable[..., Any], signature: Any) -> bytes:
    compiled = cfunc(signature, nopython=True, error_model="numpy")(function)
    text = compiled.inspect_llvm().replace(compiled.native_name, "nv_run")
    # what can be called from C calls the function, which Numba forbids to put in there
    text = text.replace("{ noinline }", "{ nounwind }")
    return _emit(ll.parse_assembly(text), {"nv_run"})


_EXPORTS = {
    ALONE: ("nv_block", "nv_block"),
    CARRIED: ("nv_resume", "nv_carrier"),
    FIBERS: ("nv_resume", "nv_fiber"),
}
_libraries: list[Any] = []  # machine code is in memory as long as these live


@functools.cache
def _linker() -> Any:
    return ll.create_lljit_compiler(_machine())


def _link(builder: ll.JITLibraryBuilder) -> Any:
    _libraries.append(builder.link(_linker(), f"minidl {len(_libraries)}"))
    return _libraries[-1]


@functools.cache
def native(function: Callable[..., Any], signature: Any) -> int:
    """The address of a function of ours, compiled by Numba, from the disk if it is there."""
    key = f"{function.__module__}.{function.__name__} {_here()}"
    if (image := cache.load("x86", key)) is None:
        image = _compile(function, signature)
        cache.store("x86", key, image)
    library = _link(ll.JITLibraryBuilder().add_object_img(image).export_symbol("nv_run"))
    return library["nv_run"]


@functools.cache
def scheduler_code() -> Callable[..., int]:
    """`scheduler.run`, compiled."""
    number, pointer = ctypes.c_int64, ctypes.c_void_p
    kinds = pointer, pointer, number, pointer, *[number] * 5
    return ctypes.CFUNCTYPE(number, *kinds)(native(scheduler.run, scheduler.SIGNATURE))


class Loaded:
    """Machine code in memory, tied to one worker's state and shared memory."""

    def __init__(self, code: Code, **places: int) -> None:
        builder = ll.JITLibraryBuilder().add_object_img(code.image).add_current_process()
        for name, place in places.items():
            builder.import_symbol(name, place)
        libm = ctypes.CDLL("libm.so.6")
        for name, same in code.libm.items():
            builder.import_symbol(name, ctypes.cast(getattr(libm, same), ctypes.c_void_p).value)
        for name in {*_EXPORTS[code.threads]}:
            builder.export_symbol(name)
        library = _link(builder)
        self.entry, self.fiber = (library[name] for name in _EXPORTS[code.threads])
