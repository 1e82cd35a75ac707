"""An artifact that does nothing but multiply-adds: what a core can reach at most, by the same way as every network.

Its latency, measured like any other, gives the peak that shares of peak are taken of. Its kernel is in the cache like
all kernels, and its answer is checked like all answers.
"""

from __future__ import annotations

from pathlib import Path

from device_farm.compiler.artifact import Artifact
from device_farm.compiler.cache import ObjectCache
from device_farm.compiler.compile import kernel_symbol
from device_farm.compiler.graph import Activate, Activation, Graph, Input, Shape
from device_farm.compiler.importing import importing_tvm
from device_farm.compiler.kernels.spec import PeakKernel
from device_farm.compiler.layout import plan_memory
from device_farm.compiler.plan import Plan, executable
from device_farm.compiler.program import make_program, program_key
from device_farm.compiler.seeded import INPUT_STREAM, uniform
from device_farm.compiler.steps import Call, Place, Step
from device_farm.compiler.target import Target
from device_farm.compiler.version import compiler_version, digest
from device_farm.errors import CompileError
from device_farm.files import write_atomically

ROUNDS = 50_000  # of the chains: 0.3-1.3 ms a pass


def compile_peak(target: Target, *, out_dir: Path, cache_dir: Path) -> Artifact:
    """The executable at out_dir/<key>; `macs` of the artifact over its latency is the peak. Raises CompileError."""
    spec = PeakKernel(chains=_chains(target))
    lanes, macs = target.simd_lanes, target.simd_lanes * spec.chains * ROUNDS
    symbol = kernel_symbol(spec, target)

    def make(file: Path) -> None:
        with importing_tvm():
            from device_farm.compiler.kernels import emit

        try:
            emit.build_object(spec, symbol=symbol, target=target, path=str(file))
        except Exception as error:
            raise CompileError(f"TVM failed on the kernel that measures the peak: {error}") from error

    cache = ObjectCache(cache_dir)
    program = make_program([symbol], lambda _: (spec, cache.get_or_make(symbol, make)), target=target, cache=cache)
    key = digest([compiler_version(), symbol, str(ROUNDS)])[:32]
    out_dir.mkdir(parents=True, exist_ok=True)
    path = (out_dir / key).absolute()
    write_atomically(path, executable(program, _plan(spec, symbol, key, macs, target), None), executable=True)
    return Artifact(
        key=key,
        path=path,
        target=target.name,
        input_shape=(1, 1, lanes),
        output_elements=lanes,
        input_seed=0,
        expected_output=tuple(uniform(0, INPUT_STREAM, lanes).tolist()),
        tolerance=target.element.tolerance,
        macs=macs,
        kept_macs=macs,
    )


def _plan(spec: PeakKernel, symbol: str, key: str, macs: int, target: Target) -> Plan:
    """A network of one step, whose chains end at what it reads: an operator that changes nothing."""
    peak = Activate("peak", ("x",), Activation.NONE)
    graph = Graph((Input("x", (), Shape(1, 1, target.simd_lanes)), peak))
    memory = plan_memory(graph, target)
    places = {name: Place("arena", memory.offsets[name] + memory.layouts[name].offset(0, 0)) for name in ("x", "peak")}
    call = Call(spec, {"x": places["x"], "y": places["peak"], "rounds": ROUNDS})
    return Plan(
        key=key,
        program=program_key([symbol], target),
        graph=graph,
        target=target,
        memory=memory,
        packed={},
        parameter_bytes=0,
        steps=(Step(peak, (call,), macs, macs),),
        kernels={spec: 0},
        seed=0,
        threads=1,
    )


def _chains(target: Target) -> int:
    """Enough to hide four cycles of latency on several units, and few enough for the registers."""
    return 12 if target.registers < 32 else 24
