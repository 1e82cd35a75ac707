"""Arithmetic on constants: masks on weights, transposed weights, computed bounds. Done here once, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from device_farm.compiler.frontend.calls import Array, Call
from device_farm.compiler.frontend.limits import check_constant

_ELEMENTWISE: dict[str, Callable[..., Array]] = {
    "abs": np.abs,
    "add": np.add,
    "divide": np.divide,
    "exp": np.exp,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "isnan": np.isnan,
    "less": np.less,
    "less_equal": np.less_equal,
    "logical_and": np.logical_and,
    "logical_not": np.logical_not,
    "logical_or": np.logical_or,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "multiply": np.multiply,
    "negative": np.negative,
    "power": np.power,
    "rsqrt": lambda x: 1.0 / np.sqrt(x),
    "sign": np.sign,
    "sqrt": np.sqrt,
    "square": np.square,
    "subtract": np.subtract,
    "where": np.where,
}


def _reduction(function: Callable[..., Array]) -> Callable[[Call], Array]:
    def reduce(call: Call) -> Array:
        axes = None if call.attrs.axis is None else call.ints("axis")
        return np.asarray(function(call.args[0], axis=axes, keepdims=bool(call.attrs.keepdims)))

    return reduce


def _astype(call: Call) -> Array:
    dtype = np.dtype(str(call.attrs.dtype))
    array: Array = call.args[0]
    return array.astype(np.float64 if dtype.kind == "f" else dtype)


def _permute(call: Call) -> Array:
    axes = call.attrs.axes
    return np.transpose(call.args[0], None if axes is None else [int(axis) for axis in axes])


_OTHERS: dict[str, Callable[[Call], Array]] = {
    "astype": _astype,
    "broadcast_to": lambda call: np.broadcast_to(call.args[0], call.dims),
    "concat": lambda call: np.concatenate(call.args[0], axis=int(call.attrs.axis)),
    "expand_dims": lambda call: call.args[0].reshape(call.dims),
    "full": lambda call: np.full(call.dims, call.args[1]),
    "max": _reduction(np.max),
    "mean": _reduction(np.mean),
    "min": _reduction(np.min),
    "ones": lambda call: np.ones(call.dims),
    "permute_dims": _permute,
    "reshape": lambda call: call.args[0].reshape(call.dims),
    "squeeze": lambda call: call.args[0].reshape(call.dims),
    "sum": _reduction(np.sum),
    "zeros": lambda call: np.zeros(call.dims),
}

# a constant whatever they read: only the shape of their argument counts
_SHAPE_ONLY: dict[str, Callable[..., Array]] = {"zeros_like": np.zeros, "ones_like": np.ones}


def evaluate(call: Call) -> Array | None:
    """The value of a call whose result does not depend on the network's input; None for any other call.

    Raises UnsupportedOperator for constants combined by an operator that is not known here.
    """
    if call.operator in _SHAPE_ONLY:
        check_constant(call.layer, call.dims)
        return _SHAPE_ONLY[call.operator](call.dims)
    if not all(map(_is_constant, call.args)):
        return None
    check_constant(call.layer, call.dims)
    if call.operator in _ELEMENTWISE:
        return np.asarray(_ELEMENTWISE[call.operator](*call.args))
    if call.operator in _OTHERS:
        return np.asarray(_OTHERS[call.operator](call))
    raise call.unsupported("on constants is not known", "compute the constant before the export")


def _is_constant(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_constant, value))
    return value is None or isinstance(value, np.ndarray | int | float | str)
