"""Compiles networks with their sparsity and measures them on devices. Knows nothing of searching."""
