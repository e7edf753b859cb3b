"""exp, log, tanh, erfc ... of float32 as plain arithmetic: LLVM does 16 of them at once.

Numba's own call the C library number by number, and in a loop with such a call nothing is
vectorised. These have no branches, only choices between two results, so a loop around them becomes
vectors. `scalars.py` finds this module in the place of `math`: what it says is computed with these.

Each takes any float32 and gives what mathematics says of NaN, infinities, denormals and overflow.
ULPS has bounds of the errors, in units in the last place of the result; tests/test_maths.py tries
numbers of all magnitudes.
On a CPU without fused multiply-add, erfc of large numbers is less exact.

Sources: Cody and Waite, "Software Manual for the Elementary Functions", 1980 (reduction by ln 2 in
two parts); Moshier, Cephes 2.2, 1992 (coefficients of log); Shepherd and Laframboise, "Chebyshev
approximation of (1 + 2x) exp(x^2) erfc x", Mathematics of Computation 36, 1981 (the form of erfc);
Eigen 3.4, generic_fast_tanh_float (coefficients of tanh). Those of exp and erfc are minimax fits of
the least degree that does, found by Lawson's iteration.
"""

import math
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic

from ._numba import callable_within

ULPS = {"exp": 1.0, "expm1": 1.5, "log": 1.0, "log1p": 1.5, "tanh": 5.0, "erfc": 6.0}
fabs, sqrt, pow = math.fabs, math.sqrt, math.pow

_FEATURES = binding.get_host_cpu_features()
# Numba would do integers in 64 bits, and then half as many at once
_f, _i = np.float32, np.int32
_ZERO, _HALF, _ONE, _TWO, _INF = _f(0), _f(0.5), _f(1), _f(2), _f(np.inf)
# ln 2 in two parts: whole numbers below 2**15 times the first one are exact
_LN2_HIGH, _LN2_LOW, _PER_LN2 = _f(0.693359375), _f(-2.12194440e-4), _f(1 / math.log(2))
_LOWEST, _HIGHEST = _f(-104), _f(89)  # exp is 0 below, inf above
_NEAREST = _f(
    1.5 * 2**23
)  # added to a small number it leaves the nearest whole one in the low bits
_NEAREST_BITS = _NEAREST.view(_i)
_SIGN, _BIAS, _MANTISSA = _i(-(2**31)), _i(127), _i(23)  # parts of a float32
# (exp r - 1 - r) / r^2 for |r| <= ln 2 / 2, from the highest power on
_E4, _E3, _E2, _E1, _E0 = map(
    _f, (0.0013950486900284886, 0.008368889801204205, 0.04166620597243309, 0.166665181517601, 0.5)
)
# (log(1 + f) - f + f^2 / 2) / f^3 for sqrt(1/2) <= 1 + f < sqrt(2)
_L8, _L7, _L6, _L5, _L4, _L3, _L2, _L1, _L0 = map(
    _f,
    (
        7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
        -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
    ),
)  # fmt: skip
_ROOT_HALF_BITS = _f(math.sqrt(0.5)).view(_i)
_NORMAL, _RAISED = _f(2.0**-126), _f(2.0**23)
# tanh x / x in x^2, a quotient, for |x| up to _ONES, where tanh is 1
_T6, _T5, _T4, _T3, _T2, _T1, _T0 = map(
    _f,
    (
        -2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08,
        1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03,
    ),
)  # fmt: skip
_B3, _B2, _B1, _B0 = map(
    _f, (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)
)
_ONES, _SAME = _f(7.90531110763549805), _f(4e-4)
# exp(z^2) erfc(z) (z + 3) in (z - 3) / (z + 3), up to _FAR, where erfc is 0
_C9, _C8, _C7, _C6, _C5, _C4, _C3, _C2, _C1, _C0 = map(
    _f,
    (
        -3.2533728517591953e-4, -4.831816186197102e-4, 3.0803303234279156e-3,
        -1.2264272663742304e-3, -2.683982625603676e-2, 1.1952906847000122e-1,
        -3.104660212993622e-1, 5.902283191680908e-1, -8.833944797515869e-1, 1.0740069150924683,
    ),
)  # fmt: skip
_MIDDLE, _FAR = _f(3), _f(10.2)
_GUESS = _i(0x7EF311C7)  # less the bits of x it is within 6 % of the bits of 1 / x


@intrinsic
def _fma(typing, a, b, c):
    """a b + c, in one rounding where the CPU can."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return (
            builder.fma(*args)
            if _FEATURES.get("fma")
            else builder.fadd(builder.fmul(*args[:2]), args[2])
        )

    return types.float32(types.float32, types.float32, types.float32), lower


@intrinsic
def _bits(typing, x):
    """The 32 bits of a float32 as an integer."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(32))

    return types.int32(types.float32), lower


@intrinsic
def _number(typing, bits):
    """The float32 of 32 bits."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), lower


@intrinsic
def _ldexp(typing, x, k):
    """x times 2 ** k: one instruction of AVX-512, a call of the C library elsewhere."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.FloatType(), [ir.FloatType(), ir.IntType(32)])
        name = "llvm.ldexp.f32.i32"
        held = builder.module.globals.get(name)
        return builder.call(held or ir.Function(builder.module, kind, name), args)

    return types.float32(types.float32, types.int32), lower


@callable_within
def _at_once(x, k):
    """x times 2 ** k."""
    return _ldexp(x, k)


@callable_within
def _in_two_steps(x, k):
    """x times 2 ** k, for k from -252 to 254: 2 ** k itself may be too large or too small."""
    half = _i(k >> _i(1))
    x *= _number(_i(_i(half + _BIAS) << _MANTISSA))
    return x * _number(_i(_i(_i(k - half) + _BIAS) << _MANTISSA))


_scaled = _at_once if _FEATURES.get("avx512f") else _in_two_steps


@callable_within
def _within(x):
    """x, or where it lies outside, the end of the range in which exp is neither 0 nor inf."""
    x = _LOWEST if x < _LOWEST else x
    return _HIGHEST if x > _HIGHEST else x


@callable_within
def _reduced(x):
    """The whole number k nearest to x / ln 2, r = x - k ln 2, and (e ** r - 1 - r) / r ** 2."""
    shifted = _fma(x, _PER_LN2, _NEAREST)
    whole = shifted - _NEAREST
    r = _fma(whole, -_LN2_LOW, _fma(whole, -_LN2_HIGH, x))
    p = _fma(_fma(_fma(_fma(_E4, r, _E3), r, _E2), r, _E1), r, _E0)
    return _i(_bits(shifted) - _NEAREST_BITS), r, p


@callable_within
def _exp(x):
    """exp of a number within the range."""
    k, r, p = _reduced(x)
    return _scaled(_fma(_fma(p, r, _ONE), r, _ONE), k)


@callable_within
def exp(x):
    return _exp(_within(x))


@callable_within
def expm1(x):
    k, r, p = _reduced(_within(x))
    y = _fma(r * r, p, r)
    half = _scaled(_HALF, k)  # for 2 ** 128 is inf
    z = _fma(y, half, half - _HALF)
    return y if k == 0 else z + z


@callable_within
def tanh(x):
    z = -_ONES if x < -_ONES else x
    z = _ONES if z > _ONES else z
    square = z * z
    p = _fma(_fma(_fma(_T6, square, _T5), square, _T4), square, _T3)
    p = _fma(_fma(_fma(p, square, _T2), square, _T1), square, _T0)
    q = _fma(_fma(_fma(_B3, square, _B2), square, _B1), square, _B0)
    return x if fabs(x) < _SAME else z * p / q


@callable_within
def log(x):
    tiny = x < _NORMAL
    bits = _bits(x * _RAISED if tiny else x)
    k = _i(_i(bits - _ROOT_HALF_BITS) >> _MANTISSA)
    f = _number(_i(bits - _i(k << _MANTISSA))) - _ONE
    whole, square = _f(_i(k - _MANTISSA) if tiny else k), f * f
    even = _fma(_fma(_fma(_fma(_L8, square, _L6), square, _L4), square, _L2), square, _L0)
    odd = _fma(_fma(_fma(_L7, square, _L5), square, _L3), square, _L1)
    p = _fma(odd, f, even)
    y = _fma(_fma(p, f, -_HALF), square, _fma(whole, _LN2_LOW, f))
    y = _fma(whole, _LN2_HIGH, y)
    if x > _ZERO:
        return y if x < _INF else x
    return -_INF if x == _ZERO else x * _f(np.nan)


@callable_within
def log1p(x):
    total = _ONE + x
    lost = x - (total - _ONE)  # by that rounding
    return log(total) + (lost / total if total > _ZERO and total < _INF else _ZERO)


@callable_within
def _inverse(x):
    """1 / x, of ordinary size: a guess by the exponent, and two steps; / is slower."""
    r = _number(_i(_GUESS - _bits(x)))
    miss = _fma(-x, r, _ONE)
    r = _fma(_fma(miss, miss, miss), r, r)
    return _fma(_fma(-x, r, _ONE), r, r)


@callable_within
def erfc(x):
    z = fabs(x)
    z = _FAR if z > _FAR else z
    r = _inverse(z + _MIDDLE)
    q = (z - _MIDDLE) * r
    # even and odd powers apart: two short chains of sums are done sooner than a long one
    square = q * q
    even = _fma(_fma(_fma(_fma(_C8, square, _C6), square, _C4), square, _C2), square, _C0)
    odd = _fma(_fma(_fma(_fma(_C9, square, _C7), square, _C5), square, _C3), square, _C1)
    p = _fma(odd, q, even)
    square = z * z
    bell = _exp(-square)
    bell = _fma(-bell, _fma(z, z, -square), bell)  # less what was rounded off the square
    y = bell * (p * r)
    return y if x >= _ZERO else _TWO - y


@callable_within
def rank(x):
    """An integer that is larger for larger x: of integers LLVM finds the largest by vectors."""
    bits = _bits(x)
    return _i(bits ^ _i(_i(bits >> _i(31)) & ~_SIGN))


@callable_within
def ranked(place):
    """The x of a rank."""
    return _number(_i(place ^ _i(_i(place >> _i(31)) & ~_SIGN)))
