"""What a kernel needs and Python cannot say: 128-bit loads and stores, and tensor cores.

An intrinsic is typed like a function and writes its own LLVM IR. What only a GPU can run sits in
a function of a fixed name (NVVM allows letters, digits, _ and $), which the kernel's IR calls and
which is inlined; so the emulator can give it another body:

    {float, float, float, float} @"minidl_mma_m16n8k8_tf32"(i32 a0..a3, i32 b0, b1, float c0..c3)
        The warp's product D = A B + C on a tensor core; all 32 lanes call it together. A (16, 8)
        and B (8, 8) are TF32: float32 bits of which the last 13 are ignored. With g = lane // 4
        and t = lane % 4 a lane holds
            a0..a3 = A[g, t], A[g + 8, t], A[g, t + 4], A[g + 8, t + 4]
            b0, b1 = B[t, g], B[t + 4, g]
            c0..c3 = C[g, 2t], C[g, 2t + 1], C[g + 8, 2t], C[g + 8, 2t + 1], and D alike.
        (PTX ISA, "Matrix Fragments for mma.m16n8k8".)
    i32 @"minidl_round_tf32"(float x)
        The bits of x rounded to TF32: 10 bits after the leading one, ties away from zero.
"""

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.errors import NumbaTypeError

from ..roles import Array
from . import memory
from ._numba import intrinsic

_INT, _FLOAT = ir.IntType(32), ir.FloatType()
_MMA = (
    "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
    "{$0, $1, $2, $3}, {$4, $5, $6, $7}, {$8, $9}, {$10, $11, $12, $13};"
)


def aligned(*arrays: Array) -> bool:
    """Whether each array starts at a multiple of 16 bytes: what a launcher must know."""
    return all(memory.pointer(a) % 16 == 0 for a in arrays)


def _named(
    builder: ir.IRBuilder, name: str, kind: ir.FunctionType, asm: str, constraints: str
) -> ir.Function:
    """The function of a name in the module that is being built; defined there at first use."""
    module = builder.module
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, kind, name)
    function.linkage = "linkonce_odr"
    function.attributes.add("alwaysinline")
    body = ir.IRBuilder(function.append_basic_block())
    together = constraints.count("=") > 1  # mma: no branch may come between the lanes of a warp
    attributes = ("convergent", "nounwind") if together else ("nounwind",)
    function.attributes.update(attributes)
    inline = ir.InlineAsm(kind, asm, constraints, side_effect=together)
    body.ret(body.call(inline, function.args, attrs=attributes))
    return function


def _address(context: Any, builder: Any, kind: types.Array, args: Sequence[Any], lanes: int) -> Any:
    """Pointer to `lanes` numbers of an array from a flat index on: the first two of args."""
    array, i = args[:2]
    data = context.make_array(kind)(context, builder, array).data
    place = builder.gep(data, [i])
    vector = ir.VectorType(place.type.pointee, lanes)
    return builder.bitcast(place, vector.as_pointer())


def _check(name: str, array: types.Type, dtype: types.Type) -> None:
    if not isinstance(array, types.Array) or array.dtype != dtype or array.layout != "C":
        raise NumbaTypeError(f"{name}: {array} is not a contiguous array of {dtype}")


def _float(array: types.Type) -> types.Type:
    return types.float64 if getattr(array, "dtype", None) == types.float64 else types.float32


def _load(name: str, dtype: types.Type, lanes: int, array: types.Type) -> tuple[Any, Callable]:
    _check(name, array, dtype)

    def lower(context: Any, builder: Any, signature: Any, args: Sequence[Any]) -> Any:
        place = _address(context, builder, signature.args[0], args, lanes)
        vector = builder.load(place, align=16)
        parts = [builder.extract_element(vector, ir.Constant(_INT, n)) for n in range(lanes)]
        return context.make_tuple(builder, signature.return_type, parts)

    return types.UniTuple(dtype, lanes)(array, types.int64), lower


def _store(name: str, dtype: types.Type, lanes: int, array: types.Type) -> tuple[Any, Callable]:
    _check(name, array, dtype)

    def lower(context: Any, builder: Any, signature: Any, args: Sequence[Any]) -> Any:
        place = _address(context, builder, signature.args[0], args, lanes)
        vector = ir.Constant(place.type.pointee, ir.Undefined)
        for n, value in enumerate(args[2:]):
            vector = builder.insert_element(vector, value, ir.Constant(_INT, n))
        builder.store(vector, place, align=16)
        return context.get_dummy_value()

    return types.void(array, types.int64, *[dtype] * lanes), lower


@intrinsic
def ld4(typing, array, i):
    """The four floats from flat index i of a contiguous array: one 128-bit load; of float64 two."""
    return _load("ld4", _float(array), 4, array)


@intrinsic
def st4(typing, array, i, a, b, c, d):
    """Store four floats from flat index i of a contiguous array on: one 128-bit store, or two."""
    return _store("st4", _float(array), 4, array)


@intrinsic
def ld2(typing, array, i):
    """The two float64 from flat index i of a contiguous array, in one 128-bit load."""
    return _load("ld2", types.float64, 2, array)


@intrinsic
def st2(typing, array, i, a, b):
    """Store two float64 from flat index i of a contiguous array on, in one 128-bit store."""
    return _store("st2", types.float64, 2, array)


@intrinsic
def plus(typing, a, b):
    """a + b, rounded by itself: never fused with the product that b may be.

    So adding to what is there gives the same bits as storing the product and adding it then.
    """
    if a != b or not isinstance(a, types.Number | types.Boolean):
        hint = "write a constant in a kernel as x.dtype.type(...), in scalars.py as type(x)(...)"
        raise NumbaTypeError(f"plus: {a} and {b} are not numbers of one type; {hint}")

    def lower(context: Any, builder: Any, signature: Any, args: Sequence[Any]) -> Any:
        if not isinstance(a, types.Float):
            return (builder.or_ if isinstance(a, types.Boolean) else builder.add)(*args)
        kind = args[0].type
        name = f"llvm.nvvm.add.rn.{'d' if a == types.float64 else 'f'}"
        known = builder.module.globals.get(name)
        known = known or ir.Function(builder.module, ir.FunctionType(kind, [kind, kind]), name)
        return builder.call(known, args)

    return a(a, b), lower


@intrinsic
def round_tf32(typing, x):
    """x rounded to TF32, as a float32 whose last 13 bits are 0."""

    def lower(context: Any, builder: Any, signature: Any, args: Sequence[Any]) -> Any:
        kind = ir.FunctionType(_INT, [_FLOAT])
        function = _named(builder, "minidl_round_tf32", kind, "cvt.rna.tf32.f32 $0, $1;", "=r,f")
        return builder.bitcast(builder.call(function, args), _FLOAT)

    return types.float32(types.float32), lower


@intrinsic
def mma_m16n8k8_tf32(typing, a0, a1, a2, a3, b0, b1, c0, c1, c2, c3):
    """A lane's four numbers of D = A B + C, the product of a warp: see the top of this file."""

    def lower(context: Any, builder: Any, signature: Any, args: Sequence[Any]) -> Any:
        kind = ir.FunctionType(ir.LiteralStructType([_FLOAT] * 4), [_INT] * 6 + [_FLOAT] * 4)
        constraints = ",".join(["=f"] * 4 + ["r"] * 6 + ["f"] * 4)
        function = _named(builder, "minidl_mma_m16n8k8_tf32", kind, _MMA, constraints)
        bits = [builder.bitcast(a, _INT) for a in args[:6]]
        d = builder.call(function, [*bits, *args[6:]])
        parts = [builder.extract_value(d, n) for n in range(4)]
        return context.make_tuple(builder, signature.return_type, parts)

    return types.UniTuple(types.float32, 4)(*[types.float32] * 10), lower
