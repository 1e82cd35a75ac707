"""How many bytes of parameters an artifact carries, without compiling anything."""

from __future__ import annotations

from device_farm.compiler.fusing import fused_blocks
from device_farm.compiler.graph import Graph
from device_farm.compiler.layout import plan_memory
from device_farm.compiler.living import living_blocks
from device_farm.compiler.packing import pack
from device_farm.compiler.target import Target


def parameter_bytes(graph: Graph, *, target: Target, threads: int = 1) -> int:
    """Bytes of weights, biases, tap lists and pointers of the graph's artifact, as the kernels of the target read them.

    Exact for the artifacts that `compile_network` makes with its defaults: the same plan, up to where values would be
    put in. So it has what the layout costs: padding to whole vectors, the transformed weights of Winograd layers. Of a
    layer whose blocks of filters are lower than the target's, unions of taps are those of the seed. Some milliseconds.
    """
    living = living_blocks(graph, target, weights=None, seed=0)
    memory = plan_memory(graph, target, fused_blocks(graph, threads=threads), living, threads=threads)
    return pack(graph, memory, target=target, weights=None, seed=0)[1].bytes
