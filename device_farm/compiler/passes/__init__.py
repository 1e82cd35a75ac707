"""Rewriting of graphs: the same function in fewer operators, or with fewer taps. No framework in here."""

from device_farm.compiler.passes.affine import fold_affines
from device_farm.compiler.passes.fusion import fuse, merge_activations, merge_residuals
from device_farm.compiler.passes.rewriting import drop_dead
from device_farm.compiler.passes.sparsity import find_sparsity, kept_taps, prunable, prune_weights, sparsify

__all__ = [
    "drop_dead",
    "find_sparsity",
    "fold_affines",
    "fuse",
    "kept_taps",
    "merge_activations",
    "merge_residuals",
    "prunable",
    "prune_weights",
    "sparsify",
]
