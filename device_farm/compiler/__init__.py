"""Network + sparsity -> one static executable per target.

    from device_farm.compiler import compile_network, host_target

Importing this package imports neither TVM nor torch.
"""

from device_farm.compiler.artifact import Artifact
from device_farm.compiler.compile import artifact_key, compile_network, load_artifact
from device_farm.compiler.graph import Graph
from device_farm.compiler.reference import reference_output
from device_farm.compiler.target import AVX2, AVX512, NEON, NEON_FP16, TARGETS, Precision, Target, host_target
from device_farm.compiler.weights import seeded_weights

__all__ = [
    "AVX2",
    "AVX512",
    "NEON",
    "NEON_FP16",
    "TARGETS",
    "Artifact",
    "Graph",
    "Precision",
    "Target",
    "artifact_key",
    "compile_network",
    "host_target",
    "load_artifact",
    "reference_output",
    "seeded_weights",
]
