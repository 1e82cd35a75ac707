"""Imports of large libraries: they make a million objects that stay, so looking for garbage in between is vain."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collection() -> Iterator[None]:
    """No cyclic garbage is looked for inside; a tenth of what importing TVM and torch takes (docs/compiler.md)."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
