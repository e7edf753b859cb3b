"""Many floats at a time, said outright: LLVM does not always find them by itself.

A loop over channels that reads nine windows and nine rows of filters is vectorised only after LLVM
has made sure that what it writes overlaps none of them, and of so many it gives up. With these a
compiled function says what it means: a Vector is a value like any other, and stays in a register.
It is two of the CPU's longest, or more of its shorter ones: LLVM splits it. So one instruction does
not wait for another, and four sums fit into the registers.
"""

from collections.abc import Sequence
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic, models, register_model

# Two of the longest vectors beat one: depthwise convolutions took 0.30 ms for 0.42, their gradients
# by w half as long (`python -m benchmarks.kernels`). Without AVX-512's 32 registers there is
# not the room.
LANES = 32 if binding.get_host_cpu_features().get("avx512f") else 16
_TYPE = ir.VectorType(ir.FloatType(), LANES)


class Vector(types.Type):
    """Numba's type of LANES floats."""

    def __init__(self) -> None:
        super().__init__("Vector")


@register_model(Vector)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector):
        super().__init__(manager, kind, _TYPE)


_VECTOR = Vector()


def _address(context: Any, builder: Any, array: types.Array, args: Sequence[Any]) -> Any:
    """Pointer to LANES numbers of an array from a flat index on: the first two of args."""
    data = context.make_array(array)(context, builder, args[0]).data
    return builder.bitcast(builder.gep(data, [args[1]]), _TYPE.as_pointer())


@intrinsic
def load(typing, array, i):
    """LANES numbers from flat index i of a contiguous float32 array on."""

    def lower(context: Any, builder: Any, signature: Any, args: Sequence[Any]) -> Any:
        return builder.load(_address(context, builder, array, args), align=4)

    return _VECTOR(array, types.intp), lower


@intrinsic
def store(typing, array, i, value):
    """LANES numbers to flat index i of a contiguous float32 array and on."""

    def lower(context: Any, builder: Any, signature: Any, args: Sequence[Any]) -> Any:
        builder.store(args[2], _address(context, builder, array, args), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, _VECTOR), lower


@intrinsic
def splat(typing, x):
    """One number in all lanes."""

    def lower(context: Any, builder: Any, signature: Any, args: Sequence[Any]) -> Any:
        undefined, zero = ir.Constant(_TYPE, ir.Undefined), ir.Constant(ir.IntType(32), 0)
        first = builder.insert_element(undefined, args[0], zero)
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return builder.shuffle_vector(first, undefined, lanes)

    return _VECTOR(types.float32), lower


@intrinsic
def plus(typing, a, b):
    """a + b."""

    def lower(context: Any, builder: Any, signature: Any, args: Sequence[Any]) -> Any:
        return builder.fadd(*args)

    return _VECTOR(_VECTOR, _VECTOR), lower


@intrinsic
def plus_product(typing, total, a, b):
    """total + a b, in one rounding where the CPU can."""

    def lower(context: Any, builder: Any, signature: Any, args: Sequence[Any]) -> Any:
        product = builder.fmul(args[1], args[2], flags=["contract"])
        return builder.fadd(args[0], product, flags=["contract"])

    return _VECTOR(_VECTOR, _VECTOR, _VECTOR), lower


@intrinsic
def at_least(typing, x, low):
    """The larger of x and low; NaN where x is."""

    def lower(context: Any, builder: Any, signature: Any, args: Sequence[Any]) -> Any:
        return builder.select(builder.fcmp_ordered("<", *args), args[1], args[0])

    return _VECTOR(_VECTOR, _VECTOR), lower


@intrinsic
def minus(typing, a, b):
    """a - b."""

    def lower(context: Any, builder: Any, signature: Any, args: Sequence[Any]) -> Any:
        return builder.fsub(*args)

    return _VECTOR(_VECTOR, _VECTOR), lower


@intrinsic
def times(typing, a, b):
    """a times b."""

    def lower(context: Any, builder: Any, signature: Any, args: Sequence[Any]) -> Any:
        return builder.fmul(*args)

    return _VECTOR(_VECTOR, _VECTOR), lower


@intrinsic
def where_positive(typing, y, x):
    """x where y is above 0 or NaN, else 0."""

    def lower(context: Any, builder: Any, signature: Any, args: Sequence[Any]) -> Any:
        y, x = args
        zero = ir.Constant(_TYPE, [0.0] * LANES)
        return builder.select(builder.fcmp_ordered("<=", y, zero), zero, x)

    return _VECTOR(_VECTOR, _VECTOR), lower
