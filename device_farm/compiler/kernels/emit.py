"""TIR by hand: the few words that the emitters need. Built from nodes, since parsing TVMScript costs 25 ms a kernel.

A generated function takes plain pointers and integers, so it is called from C like any other and needs no TVM runtime.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import tvm
from tvm import ir, tirx
from tvm.tirx import ForKind

from device_farm.compiler.graph import Activation
from device_farm.compiler.kernels.spec import FLOAT, INT, INTS_IN, KernelSpec
from device_farm.compiler.sparsity import QUAD_CHANNELS
from device_farm.compiler.target import Target

Expr = Any
Stmt = Any
INDEX = "int64"  # becomes an address without an instruction, where 32 bits would have to be extended
ANY_LENGTH = 1 << 30  # TIR wants an extent; the callers know the real one


class Vectors:
    """Arithmetic on SIMD vectors of one floating-point type, all of the same number of lanes."""

    def __init__(self, dtype: str, lanes: int) -> None:
        self.dtype = dtype
        self.lanes = lanes
        self.type = ir.PrimType(f"{dtype}x{lanes}")

    def vector(self, name: str) -> Any:
        return tirx.Var(name, self.type)

    def beside(self, a: Expr, b: Expr) -> Expr:
        """Two vectors of half the lanes as one."""
        return tirx.Shuffle([a, b], list(range(self.lanes)))

    def halves(self, value: Expr) -> tuple[Expr, Expr]:
        """The lower and the upper lanes."""
        half = self.lanes // 2
        return tirx.Shuffle([value], list(range(half))), tirx.Shuffle([value], list(range(half, self.lanes)))

    def transposed_half(self, rows: Sequence[Expr]) -> tuple[list[Stmt], list[tuple[int, int, Expr]]]:
        """Columns of eight vectors of sixteen lanes, two in a vector: (column, column, both side by side).

        The statements come first.
        """
        steps, quads = self._transposed_quads(rows)
        pairs = []
        for column, (upper, lower) in enumerate(zip(quads[:4], quads[4:], strict=True)):
            for lane in (0, 8):
                order = [lane + i + 16 * side + 4 * part for part in range(2) for side in range(2) for i in range(4)]
                pairs.append((lane + column, lane + 4 + column, tirx.Shuffle([upper, lower], order)))
        return steps, pairs

    def transposed(self, rows: Sequence[Expr]) -> tuple[list[Stmt], list[Expr]]:
        """The columns of sixteen vectors of sixteen lanes. The statements come first."""
        steps, quads = self._transposed_quads(rows)  # lane 4 l + i of quads[4 r + c]: row 4 r + i, column 4 l + c
        columns: list[Expr] = [None] * 16

        def lanes(a: Expr, b: Expr, picked: tuple[int, ...]) -> Expr:
            return tirx.Shuffle([a, b], [4 * lane + i for lane in picked for i in range(4)])

        for c in range(4):
            for first in (0, 2):
                low, high = self.vector(f"low_{c}_{first}"), self.vector(f"high_{c}_{first}")
                picked = (first, first + 1, first + 4, first + 5)
                steps.append(tirx.Bind(low, lanes(quads[c], quads[4 + c], picked)))
                steps.append(tirx.Bind(high, lanes(quads[8 + c], quads[12 + c], picked)))
                columns[4 * first + c] = lanes(low, high, (0, 2, 4, 6))
                columns[4 * first + 4 + c] = lanes(low, high, (1, 3, 5, 7))
        return steps, columns

    def _transposed_quads(self, rows: Sequence[Expr]) -> tuple[list[Stmt], list[Any]]:
        """Every 4 x 4 block of four rows transposed where it is, by instructions that stay within 128 bits."""
        statements: list[Stmt] = []
        quads = []

        def mixed(name: str, a: Expr, b: Expr, picked: tuple[int, ...]) -> Any:
            result = self.vector(name)
            order = [i + (part if i < 4 else part + 12) for part in range(0, 16, 4) for i in picked]
            statements.append(tirx.Bind(result, tirx.Shuffle([a, b], order)))
            return result

        for first in range(0, len(rows), 4):
            a, b, c, d = rows[first : first + 4]
            low = [mixed(f"low_{first}_{i}", p, q, (0, 4, 1, 5)) for i, (p, q) in enumerate(((a, b), (c, d)))]
            high = [mixed(f"high_{first}_{i}", p, q, (2, 6, 3, 7)) for i, (p, q) in enumerate(((a, b), (c, d)))]
            for i, (p, q) in enumerate((low, high)):
                quads.append(mixed(f"quad_{first}_{2 * i}", p, q, (0, 1, 4, 5)))
                quads.append(mixed(f"quad_{first}_{2 * i + 1}", p, q, (2, 3, 6, 7)))
        return statements, quads

    def accumulator(self, name: str) -> Any:
        """One vector on the stack, which LLVM turns into a register."""
        return tirx.decl_buffer((self.lanes,), self.dtype, name, scope="local")

    def load(self, buffer: Any, index: Expr = 0) -> Expr:
        """One vector."""
        return tirx.BufferLoad(buffer, [tirx.Ramp(index, 1, self.lanes)])

    def store(self, buffer: Any, value: Expr, index: Expr = 0) -> Stmt:
        return tirx.BufferStore(buffer, value, [tirx.Ramp(index, 1, self.lanes)])

    def number(self, value: float) -> Expr:
        return tirx.FloatImm(self.dtype, float(value))

    def splat(self, value: Expr | float) -> Expr:
        """A number in all lanes."""
        return tirx.Broadcast(self.number(value) if isinstance(value, int | float) else value, self.lanes)

    def converted(self, value: Expr) -> Expr:
        """A vector of another type in this one."""
        return value if value.ty == self.type else tirx.Cast(self.type, value)

    def clamp(self, value: Expr, low: float, high: float | None = None) -> Expr:
        value = tirx.Max(value, self.splat(low))
        return value if high is None else tirx.Min(value, self.splat(high))

    def bound(self, value: Expr, body: Callable[[Any], Expr]) -> Expr:
        """The body for a value that it uses several times: computed once."""
        variable = self.vector("bound")
        return tirx.Let(variable, value, body(variable))

    def activate(self, value: Expr, activation: Activation) -> Expr:
        if activation is Activation.NONE:
            return value
        match activation:
            case Activation.RELU:
                return self.clamp(value, 0.0)
            case Activation.RELU6:
                return self.clamp(value, 0.0, 6.0)
            case Activation.HARD_SIGMOID:
                return self.clamp(value * self.splat(1 / 6) + self.splat(0.5), 0.0, 1.0)
            case Activation.HARD_SWISH:
                return self.bound(value, lambda x: x * self.activate(x, Activation.HARD_SIGMOID))
            case Activation.SIGMOID:
                return self.splat(1.0) / (self.splat(1.0) + exponential(self, value, sign=-1))
            case Activation.SWISH:
                return self.bound(value, lambda x: x / (self.splat(1.0) + exponential(self, x, sign=-1)))
        raise ValueError(f"no code for the activation {activation}")


class Emitter(Vectors):
    """Expressions and statements of one kernel, in the element type of its target. `wide` is the same in float32."""

    def __init__(self, spec: KernelSpec, target: Target, *, lanes: int | None = None) -> None:
        lanes = target.simd_lanes if lanes is None else lanes
        super().__init__(target.element.value, lanes)
        self.wide = Vectors("float32", lanes)
        self.parameters: list[Any] = []
        self._declarations: list[Stmt] = []
        self._arguments: dict[str, Any] = {}
        for name, kind in spec.parameters:
            if kind in (INT, FLOAT):
                number = tirx.Var(name, "int32" if kind == INT else "float32")
                self._arguments[name] = tirx.Cast(INDEX, number) if kind == INT else number
                self.parameters.append(number)
                continue
            dtype = "int32" if kind == INTS_IN else self.dtype
            pointer = tirx.Var(name, ir.PointerType(ir.PrimType(dtype)))
            buffer = tirx.decl_buffer((ANY_LENGTH,), dtype, f"{name}_buffer", data=pointer)
            self.parameters.append(pointer)
            self._declarations.append(tirx.DeclBuffer(buffer, data=pointer))
            self._arguments[name] = buffer

    def __getattr__(self, name: str) -> Any:
        """The argument of that name: a buffer for a pointer, a variable for a number."""
        try:
            return self._arguments[name]
        except KeyError:
            raise AttributeError(name) from None

    def narrowed(self, share: int) -> Emitter:
        """The same function, in vectors of so many times fewer lanes."""
        other, lanes = object.__new__(Emitter), self.lanes // share
        Vectors.__init__(other, self.dtype, lanes)
        other.__dict__ = self.__dict__ | other.__dict__ | {"wide": Vectors("float32", lanes)}
        return other

    def function(self, symbol: str, body: Stmt) -> Any:
        function = tirx.PrimFunc(self.parameters, tirx.SeqStmt([*self._declarations, body]))
        return function.with_attr("global_symbol", symbol).with_attr("tirx.noalias", True)

    def integer(self, name: str) -> Any:
        return tirx.Var(name, INDEX)

    def quad(self, name: str) -> Any:
        """A variable for four adjacent numbers."""
        return tirx.Var(name, ir.PrimType(f"{self.dtype}x{QUAD_CHANNELS}"))

    def load_quad(self, buffer: Any, index: Expr) -> Expr:
        return tirx.BufferLoad(buffer, [tirx.Ramp(index, 1, QUAD_CHANNELS)])

    def scalar(self, buffer: Any, index: Expr) -> Expr:
        value = tirx.BufferLoad(buffer, [index])
        return tirx.Cast(INDEX, value) if buffer.dtype == "int32" else value

    def store_scalar(self, buffer: Any, value: Expr, index: Expr) -> Stmt:
        return tirx.BufferStore(buffer, value, [index])

    def prefetch(self, buffer: Any, index: Expr, *, locality: int = 3) -> Stmt:
        """Asks for the cache line, to be read soon; with a locality of 2, into the second level."""
        address = tirx.call_intrin("handle", "tirx.address_of", tirx.BufferLoad(buffer, [index]))
        return tirx.Evaluate(tirx.call_intrin("void", "tirx.prefetch", address, 0, locality, 1))

    def activate(self, value: Expr, activation: Activation) -> Expr:
        """A vector of the element's type or a wide one, as an element; exponentials are computed wide."""
        if activation in (Activation.SIGMOID, Activation.SWISH):
            value = self.wide.converted(value)
        if value.ty == self.type:
            return super().activate(value, activation)
        return self.converted(self.wide.activate(value, activation))


# e^x = 2^n * 2^f with n = round(x / ln 2) and |f| <= 1/2. The polynomial has the least relative error of its degree,
# 9e-8. Measured of the sigmoid: 2.5e-7 + 1.4e-8 |x| relative, the second part for the rounding of log2(e).
_LOG2_E = 1.44269504088896341
_POLYNOMIAL = (1.3264727e-3, 9.6715130e-3, 5.5507336e-2, 2.4022242e-1, 6.9314700e-1, 1.0)
_ROUNDING = 12582912.0  # 1.5 * 2^23: a sum with it has the nearest integer in its low bits
_LARGEST = 87.3  # results are normal numbers up to here, and so are their reciprocals


def exponential(e: Vectors, value: Expr, *, sign: int = 1) -> Expr:
    """e^(sign * value) in all lanes of float32; beyond an argument of +-87.3, what it is there."""
    integers, exponent = ir.PrimType(f"int32x{e.lanes}"), e.splat(sign * _LOG2_E)

    def scaled(x: Any) -> Expr:
        shifted, f = e.vector("shifted"), e.vector("fraction")
        power = e.splat(_POLYNOMIAL[0])
        for coefficient in _POLYNOMIAL[1:]:
            power = power * f + e.splat(coefficient)
        whole = tirx.reinterpret(integers, shifted) << tirx.Broadcast(tirx.IntImm("int32", 23), e.lanes)
        result = tirx.reinterpret(e.type, tirx.reinterpret(integers, power) + whole)
        # one fused multiply-add, so the product is exact before the integer is taken off
        result = tirx.Let(f, x * exponent - (shifted - e.splat(_ROUNDING)), result)
        return tirx.Let(shifted, x * exponent + e.splat(_ROUNDING), result)

    return e.bound(e.clamp(value, -_LARGEST, _LARGEST), scaled)


def loop(name: str, extent: Expr, body: Callable[[Any], Stmt], *, start: Expr = 0) -> Stmt:
    """for (name = start; name < start + extent; ++name) body(name)"""
    variable = tirx.Var(name, INDEX)
    start = tirx.IntImm(INDEX, start) if isinstance(start, int) else start
    extent = tirx.IntImm(INDEX, extent) if isinstance(extent, int) else extent
    return tirx.For(variable, start, extent, ForKind.SERIAL, body(variable))


def sequence(*statements: Stmt | Sequence[Stmt]) -> Stmt:
    flat: list[Stmt] = []
    for statement in statements:
        flat.extend(statement) if isinstance(statement, list | tuple) else flat.append(statement)
    return flat[0] if len(flat) == 1 else tirx.SeqStmt(flat)


def tile_count(extent: Expr, tile: int) -> Expr:
    """Tiles that cover `extent`."""
    return tirx.floordiv(extent + (tile - 1), tile) if tile > 1 else extent


def tile_start(index: Expr, tile: int, extent: Expr) -> Expr:
    """Where a tile begins; the last one is shifted back so that it does not stick out."""
    return tirx.Min(index * tile, extent - tile) if tile > 1 else index


def build_object(spec: KernelSpec, *, symbol: str, target: Target, path: str) -> None:
    """Generates `spec`'s kernel as the C function `symbol` into the object file `path`."""
    build_module(spec, symbol=symbol, target=target).write_to_file(path, "o")


def build_module(spec: KernelSpec, *, symbol: str, target: Target) -> Any:
    """The kernel as TVM's runtime module."""
    emitter = importlib.import_module(f"device_farm.compiler.kernels.{spec.emitter}")
    # The functions are flat and scalar or explicitly vectorised already. FlattenBuffer would leave sums of ramps, which
    # TVM's LLVM back end may store lane by lane; x86-64-v4 prefers vectors of 256 bits: LLVM would cut some stores.
    features = ["-prefer-256-bit"] if target.simd_lanes == 16 else []
    llvm = tvm.target.Target(
        {"kind": "llvm", "mtriple": target.triple, "mcpu": target.mcpu, "mattr": features, "num-cores": 1}
    )
    lower = tvm.ir.transform.Sequential([tirx.transform.BindTarget(llvm.with_host(llvm)), tirx.transform.LowerIntrin()])
    module = lower(tvm.IRModule({symbol: emitter.emit(spec, symbol, target)}))
    return tvm.get_global_func("target.build.llvm")(module, llvm)
