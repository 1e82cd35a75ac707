"""What tests of compiled networks need: small graphs, random weights, and a way to run an artifact without a device."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device_farm.compiler.artifact import Artifact
from device_farm.compiler.graph import Conv2d, DepthwiseConv2d, Graph, Input, Op, Shape
from device_farm.compiler.target import TARGETS, Target, host_targets

Answer = Callable[[Artifact, NDArray[np.float32]], NDArray[np.float32]]
Check = Callable[..., Artifact]


def native_targets() -> tuple[Target, ...]:
    """Every float32 target that this machine can run."""
    return tuple(target for target in host_targets() if target.element == "float32")


def run_artifact(artifact: Artifact, images: NDArray[np.float32], *, scratch: Path) -> NDArray[np.float32]:
    """Outputs [images, elements] for NHWC images [images, ...]; foreign targets run under qemu-user.

    Raises subprocess.CalledProcessError, FileNotFoundError (no qemu-aarch64).
    """
    native = artifact.target in {target.name for target in host_targets()}
    launcher = [] if native else [f"qemu-{TARGETS[artifact.target].triple.partition('-')[0]}"]
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        given, got = Path(folder) / "in.f32", Path(folder) / "out.f32"
        given.write_bytes(np.ascontiguousarray(images, np.float32).tobytes())
        command = [*launcher, str(artifact.path), "classify", "--input", str(given), "--output", str(got)]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        return np.fromfile(got, np.float32).reshape(-1, artifact.output_elements)


def chain(shape: tuple[int, int, int], *ops: Op) -> Graph:
    """A graph of operators, each of which reads the one before it unless it names its inputs."""
    linked: list[Op] = [Input("x", (), Shape(*shape))]
    for op in ops:
        linked.append(op if op.inputs else type(op)(**(vars(op) | {"inputs": (linked[-1].name,)})))
    return Graph(tuple(linked))


def random_weights(graph: Graph, *, seed: int, density: float = 1.0) -> dict[str, NDArray[np.float32]]:
    """Normal weights of every layer, whole taps of eight filters pruned at random."""
    random = np.random.default_rng(seed)
    weights: dict[str, NDArray[np.float32]] = {}
    for op in graph.ops:
        channels = graph.input_shapes(op)[0].channels if op.inputs else 0
        if isinstance(op, Conv2d):
            shape = (op.filters, channels // op.groups, *op.kernel)
            groups = random.random((-(-op.filters // 8), *shape[1:])) < density
            mask = np.repeat(groups, 8, axis=0)[: op.filters]
            weights[f"{op.name}.weight"] = (random.standard_normal(shape) * 0.1 * mask).astype(np.float32)
        elif isinstance(op, DepthwiseConv2d):
            weights[f"{op.name}.weight"] = random.standard_normal((channels, 1, *op.kernel)).astype(np.float32)
        else:
            continue
        weights[f"{op.name}.bias"] = random.standard_normal(len(weights[f"{op.name}.weight"])).astype(np.float32)
    return weights
