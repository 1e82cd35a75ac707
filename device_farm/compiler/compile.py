"""Graph -> Artifact: the whole way, once."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from device_farm.compiler.artifact import Artifact
from device_farm.compiler.cache import ObjectCache
from device_farm.compiler.fusing import fused_blocks
from device_farm.compiler.graph import Graph
from device_farm.compiler.importing import importing_tvm, without_collection
from device_farm.compiler.kernels.spec import KernelSpec
from device_farm.compiler.layout import plan_memory
from device_farm.compiler.living import living_blocks
from device_farm.compiler.lowering import lower
from device_farm.compiler.packing import pack
from device_farm.compiler.parting import MOST_THREADS
from device_farm.compiler.plan import Plan, executable
from device_farm.compiler.program import make_program, program_key
from device_farm.compiler.reference import reference_output
from device_farm.compiler.seeded import INPUT_STREAM, uniform
from device_farm.compiler.steps import Step
from device_farm.compiler.target import Target
from device_farm.compiler.version import compiler_version, digest, generator_version
from device_farm.compiler.weights import Array, checked_weights, seeded_weights
from device_farm.errors import CompileError, InvalidGraph
from device_farm.files import write_atomically

MAX_MEMORY_BYTES = 4 * 1024**3  # of activations and weights: no phone gives a process more


def compile_network(
    graph: Graph,
    *,
    target: Target,
    out_dir: Path,
    cache_dir: Path,
    weights: Mapping[str, Array] | None = None,
    seed: int = 0,
    fuse: bool = True,
    by_winograd: bool = True,
    threads: int = 1,
) -> Artifact:
    """One static executable for `target`, at out_dir/<key>, with its manifest beside it.

    With `weights` (torch's layout, see `device_farm.compiler.graph`) the artifact is deployable: it carries them, and a
    tap of a block lives if any weight of it is not zero. Without, it is a benchmark: the device makes weights and taps
    from `seed`, with the counts of every layer's BlockSparsity, and the executable is small whatever the network.

    `fuse` lets inverted residuals run by bands of rows where that pays (fusing.py), `by_winograd` lets convolutions go
    by Winograd (winograd.py). With `threads` above 1 the steps
    are cut into parts that as many threads run side by side (parting.py); the answer's bits do not depend on it.

    Equal calls give equal keys; what is in `out_dir` already is not built again. `cache_dir` holds kernels by shape;
    any number of processes may share both folders.

    Raises InvalidGraph (weights that do not fit), UnsupportedOperator, CompileError.
    """
    if not 0 <= seed < 2**64:
        raise InvalidGraph(f"the seed must lie in 0..2^64-1, got {seed}")
    if not 1 <= threads <= MOST_THREADS:
        raise CompileError(f"threads must lie in 1..{MOST_THREADS}, got {threads}")
    checked = None if weights is None else checked_weights(graph, weights)
    key = artifact_key(
        graph, target=target, weights=checked, seed=seed, fuse=fuse, by_winograd=by_winograd, threads=threads
    )
    out_dir.mkdir(parents=True, exist_ok=True)
    path = (out_dir / key).absolute()
    if (known := _load(path)) is not None:
        return known

    objects = ObjectCache(cache_dir)
    living = living_blocks(graph, target, weights=checked, seed=seed) if by_winograd else None
    memory = plan_memory(graph, target, fused_blocks(graph, threads=threads) if fuse else (), living, threads=threads)
    packed, parameters = pack(graph, memory, target=target, weights=checked, seed=seed)
    if (needed := target.element.bytes * memory.elements + parameters.bytes) > MAX_MEMORY_BYTES:
        raise InvalidGraph(
            f"activations and weights take {needed / 1024**3:.1f} GiB, at most {MAX_MEMORY_BYTES / 1024**3:.0f} are "
            "compiled; use a smaller image or a narrower network"
        )
    steps = lower(graph, memory, packed, target)
    symbols = {spec: kernel_symbol(spec, target) for spec in {call.spec for step in steps for call in step.calls}}
    specs = sorted(symbols, key=symbols.__getitem__)  # so that equal sets of kernels share a program
    with without_collection():  # of a hundred thousand nodes of TIR, which leave by their counts
        program = make_program(
            [symbols[spec] for spec in specs],
            lambda index: (specs[index], _kernel(specs[index], symbols[specs[index]], target, objects, steps)),
            target=target,
            cache=objects,
        )
    plan = Plan(
        key=key,
        program=program_key([symbols[spec] for spec in specs], target),
        graph=graph,
        target=target,
        memory=memory,
        packed=packed,
        parameter_bytes=parameters.bytes,
        steps=steps,
        kernels={spec: index for index, spec in enumerate(specs)},
        seed=seed,
        threads=threads,
    )
    content = executable(program, plan, None if checked is None else parameters.to_bytes())

    image = uniform(seed, INPUT_STREAM, graph.input.shape.elements)
    expected = reference_output(graph, seeded_weights(graph, seed=seed) if checked is None else checked, image)
    artifact = Artifact(
        key=key,
        path=path,
        target=target.name,
        input_shape=(graph.input.shape.height, graph.input.shape.width, graph.input.shape.channels),
        output_elements=graph.shapes[graph.output.name].elements,
        input_seed=seed,
        expected_output=tuple(expected.reshape(-1).tolist()),
        tolerance=target.element.tolerance,
        macs=graph.macs,
        kept_macs=sum(step.kept_macs for step in steps),
        threads=threads,
    )
    write_atomically(path, content, executable=True)
    manifest = dataclasses.asdict(artifact) | {"path": path.name, "sha256": hashlib.sha256(content).hexdigest()}
    write_atomically(_manifest_path(path), json.dumps(manifest).encode())
    return artifact


def load_artifact(path: Path) -> Artifact:
    """The artifact whose executable lies at `path`, by its manifest. Raises CompileError if either is damaged."""
    artifact = _load(path.absolute())
    if artifact is None:
        raise CompileError(
            f"no whole artifact at {path}: executable or manifest is missing or damaged; compile it again"
        )
    return artifact


def artifact_key(
    graph: Graph,
    *,
    target: Target,
    weights: Mapping[str, Array] | None = None,
    seed: int = 0,
    fuse: bool = True,
    by_winograd: bool = True,
    threads: int = 1,
) -> str:
    """Content hash of an artifact, known before it is built."""
    options = [str(seed), str(fuse), str(by_winograd), str(threads)]
    parts: list[str | bytes] = [compiler_version(), graph.key, json.dumps(dataclasses.asdict(target)), *options]
    for name, array in sorted((weights or {}).items()):
        parts += [name, str(array.dtype), str(array.shape), array.tobytes()]
    return digest(parts)[:32]


@cache
def kernel_symbol(spec: KernelSpec, target: Target) -> str:
    """C name of a kernel and its key in the cache: known before it is generated."""
    parts = [generator_version(), spec.description, json.dumps(dataclasses.asdict(target))]
    return f"npas_{spec.emitter}_{digest(parts)[:24]}"


def _kernel(spec: KernelSpec, symbol: str, target: Target, objects: ObjectCache, steps: tuple[Step, ...]) -> bytes:
    def make(path: Path) -> None:
        with importing_tvm():
            from device_farm.compiler.kernels import emit  # takes most of a second: only where a kernel is new

        try:
            emit.build_object(spec, symbol=symbol, target=target, path=str(path))
        except Exception as error:
            layers = [step.name for step in steps if any(call.spec == spec for call in step.calls)]
            raise CompileError(
                f"TVM failed on the kernel of {', '.join(layers)} ({spec.description}): {error}"
            ) from error

    return objects.get_or_make(symbol, make)


def _manifest_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _load(path: Path) -> Artifact | None:
    try:
        manifest: dict[str, Any] = json.loads(_manifest_path(path).read_text())
        if hashlib.sha256(path.read_bytes()).hexdigest() != manifest.pop("sha256"):
            return None
        manifest |= {"path": path}
        manifest["input_shape"] = tuple(manifest["input_shape"])
        manifest["expected_output"] = tuple(manifest["expected_output"])
        return Artifact(**manifest)
    except (OSError, ValueError, KeyError, TypeError):
        return None
