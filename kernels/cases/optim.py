"""Cases of optimizer steps."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..roles import Array
from .bounds import exact, magnitudes
from .case import case
from .draw import Draw, Values


def _sgd(v: SimpleNamespace, run: Any) -> dict[str, Array]:
    # every term counted as a magnitude: lr < 0 turns the step's minus into a plus
    wide = {name: np.abs(a) for name, a in run.floats.items()} | {"lr": -np.abs(v.lr)}
    return {name: 8 * a for name, a in run.all(**wide).items()}


@case("sgd_step_", bound=_sgd)
def _sgd_step(d: Draw) -> Values:
    n, momentum = d.size(0, 9, 5000), d.pick("momentum", 0.0, 0.9)
    v = d.array((n,)) if momentum else None
    rest = dict(v=v, weight_decay=d.pick("weight_decay", 0.0, 0.01))
    rest |= dict(nesterov=bool(momentum) and d.pick("nesterov", False, True))
    rates = dict(lr=d.array((1,), positive=True), momentum=np.array([momentum], d.dtype))
    return dict(dp=d.array((n,)), p=d.array((n,))) | rates | rest


def _adam(v: SimpleNamespace, run: Any) -> dict[str, Array]:
    # g = dp + decay p may cancel: it errs by eps times its magnitude, and so do m and g^2 in v.
    # The step m / (sqrt(v / c2) + eps) takes over the error of m, and half the relative one of v.
    (keep1, new1, log1), (keep2, new2, log2) = v.betas
    c1, c2 = -np.expm1(v.t * log1), -np.expm1(v.t * log2)
    decay = 0 if v.decoupled else v.weight_decay
    g = np.abs(v.dp + decay * v.p)
    wide = np.abs(v.dp) + decay * np.abs(v.p)
    m = keep1 * np.abs(v.m) + new1 * wide
    square = keep2 * np.abs(v.v) + new2 * wide * 2 * g
    after = run.all()
    root = np.sqrt(after["v"] / c2)
    relative = np.divide(square, after["v"], out=np.zeros_like(square), where=after["v"] != 0)
    step = (m + np.abs(after["m"]) * relative * root / (root + v.eps) + m) / (root + v.eps)
    p = np.abs(v.p) * (1 + np.abs(v.lr) * v.weight_decay) + np.abs(v.lr) / c1 * step
    return {"p": 8 * p, "m": 8 * m, "v": 8 * (square + after["v"])}


@case("adam_step_", bound=_adam)
def _adam_step(d: Draw) -> Values:
    n = d.size(0, 9, 5000)
    dp, p, m = (d.array((n,)) for _ in range(3))
    v, lr = d.array((n,), positive=True), d.array((1,), positive=True)
    t = np.array([d.pick("t", 1, 2, 10, 100000)])
    beta1, beta2 = d.pick("betas", 0.9, 0.0, 0.5), d.pick("betas", 0.999, 0.9)
    rows = [(b, 1 - b, math.log(b) if b else -math.inf) for b in (beta1, beta2)]
    rest = dict(eps=d.pick("eps", 1e-8, 0.1), weight_decay=d.pick("weight_decay", 0.0, 0.01))
    rest |= dict(decoupled=d.pick("decoupled", False, True))
    return dict(dp=dp, lr=lr, betas=np.array(rows, d.dtype), t=t, p=p, m=m, v=v) | rest


def _over_root(top: Array, error: Array, square: Array, off: Array, eps: float) -> Array:
    """How far top / (sqrt(square) + eps) may be off, where top is by error and square by off.

    A root is off by at most sqrt(off), and by off / sqrt(square) where that is less.
    """
    root, least = np.sqrt(square), np.sqrt(np.maximum(square - off, 0))
    far = np.sqrt(off)
    shift = np.divide(off, np.maximum(root, far), out=np.zeros_like(off), where=off > 0)
    return (error + np.abs(top) * shift / (root + eps)) / (least + eps)


def _rmsprop(v: SimpleNamespace, run: Any) -> dict[str, Array]:
    # v - m^2 may cancel down to 0, and the root and the quotient with it
    after, one = run.all(), 4 * run.eps
    g = v.dp + v.weight_decay * v.p
    wide = np.abs(v.dp) + v.weight_decay * np.abs(v.p)
    square = v.alpha * np.abs(v.v) + 2 * (1 - v.alpha) * wide * wide
    mean = 0 if v.m is None else v.alpha * np.abs(v.m) + (1 - v.alpha) * wide
    middle = 0 if v.m is None else after["m"]
    true = np.maximum(after["v"] - middle * middle, 0)
    off = one * (square + 2 * mean * mean)
    quotient = np.abs(g) / (np.sqrt(true) + v.eps)
    step = _over_root(g, one * wide, true, off, v.eps) / run.eps + 4 * quotient
    b = step if v.b is None else step + 4 * np.abs(v.momentum * v.b)
    length = quotient if v.b is None else np.abs(after["b"])
    p = 4 * np.abs(v.p) + np.abs(v.lr) * (b + 4 * length)
    found = {"p": p, "v": 4 * square}
    found |= {} if v.m is None else {"m": 4 * mean}
    return found | ({} if v.b is None else {"b": b})


@case("rmsprop_step_", bound=_rmsprop)
def _rmsprop_step(d: Draw) -> Values:
    dp, p, m, b = (d.array((n,)) for n in [d.size(0, 9, 5000)] * 4)
    v, lr = d.array(p.shape, positive=True), d.array((1,), positive=True)
    momentum = d.pick("momentum", 0.0, 0.9)
    m, b = m if d.pick("m", False, True) else None, b if momentum else None
    rest = dict(eps=d.pick("eps", 1e-8, 0.1), weight_decay=d.pick("weight_decay", 0.0, 0.01))
    rest |= dict(alpha=d.pick("alpha", 0.99, 0.5, 0.0), momentum=np.array([momentum], d.dtype))
    return dict(dp=dp, lr=lr, p=p, v=v, m=m, b=b) | rest


def _adagrad(v: SimpleNamespace, run: Any) -> dict[str, Array]:
    after, one = run.all(), 4 * run.eps
    g = v.dp + v.weight_decay * v.p
    wide = np.abs(v.dp) + v.weight_decay * np.abs(v.p)
    square, true = np.abs(v.v) + 2 * wide * wide, v.initial + after["v"]
    off = one * (v.initial + square)
    rate = np.abs(v.lr) / (1 + (v.t - 1) * v.lr_decay)
    step = _over_root(g, one * wide, true, off, v.eps) / run.eps
    step += 8 * np.abs(g) / (np.sqrt(true) + v.eps)
    return {"p": 4 * np.abs(v.p) + rate * step, "v": 4 * square}


@case("adagrad_step_", bound=_adagrad)
def _adagrad_step(d: Draw) -> Values:
    n = d.size(0, 9, 5000)
    dp, p, v = d.array((n,)), d.array((n,)), d.array((n,), positive=True)
    lr, t = d.array((1,), positive=True), np.array([d.pick("t", 1, 2, 10, 100000)])
    initial, lr_decay = d.pick("initial", 0.0, 0.1), d.pick("lr_decay", 0.0, 0.01)
    rest = dict(eps=d.pick("eps", 1e-10, 0.1), weight_decay=d.pick("weight_decay", 0.0, 0.01))
    return dict(dp=dp, lr=lr, t=t, p=p, v=v, initial=initial, lr_decay=lr_decay) | rest


def _lion(v: SimpleNamespace, run: Any) -> dict[str, Array]:
    # a sign may turn where the sum below it is as small as its rounding errors
    (keep1, new1), (keep2, new2) = v.betas
    mean, wide = keep1 * v.m + new1 * v.dp, np.abs(keep1 * v.m) + np.abs(new1 * v.dp)
    turns = np.abs(mean) <= 4 * run.eps * wide
    decay = v.weight_decay * np.abs(v.p)
    step = 8 * (1 + decay) + np.where(turns, 2 / run.eps, 0)
    p = 8 * np.abs(v.p) + np.abs(v.lr) * step
    return {"p": p, "m": 8 * (keep2 * np.abs(v.m) + new2 * np.abs(v.dp))}


@case("lion_step_", bound=_lion)
def _lion_step(d: Draw) -> Values:
    dp, p, m = (d.array((n,)) for n in [d.size(0, 9, 5000)] * 3)
    betas = d.pick("beta1", 0.9, 0.0), d.pick("beta2", 0.99, 0.5)
    rates = dict(lr=d.array((1,), positive=True))
    rates |= dict(betas=np.array([(b, 1 - b) for b in betas], d.dtype))
    return dict(dp=dp, p=p, m=m, weight_decay=d.pick("weight_decay", 0.0, 0.01)) | rates


def _trust(v: SimpleNamespace, run: Any) -> dict[str, Array]:
    moved = np.abs(run.all()["p"] - v.p)
    return {"p": 8 * (np.abs(v.p) + moved)}


@case("trust_step_", bound=_trust)
def _trust_step(d: Draw) -> Values:
    u, p = (d.array((n,)) for n in [d.size(0, 9, 5000)] * 2)
    weights, steps = (
        d.array((), positive=True) * d.pick(name, 1, 0) for name in ("weights", "steps")
    )
    squares = dict(weights=np.asarray(weights, d.dtype), steps=np.asarray(steps, d.dtype))
    return dict(u=u, lr=d.array((1,), positive=True), p=p) | squares


@case("count_", bound=exact)
def _count(d: Draw) -> Values:
    return dict(t=d.integers((1,), 0, 200))


@case("clip_", bound=magnitudes)
def _clip(d: Draw) -> Values:
    square, x = d.array((), positive=True), d.array((d.size(0, 9, 5000),))
    return dict(square=square, x=x, limit=d.pick("limit", 1.0, 0.1, 1e9))
