"""Imports of large libraries, TVM above all, without what is in vain in between (docs/compiler.md)."""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any


@contextmanager
def importing_tvm() -> Iterator[None]:
    """The first import of TVM belongs inside: 0.4 s for 1.5 in a process that has no torch."""
    with ExitStack() as stack:
        stack.enter_context(without_collection())
        if "tvm_ffi" not in sys.modules:
            err_early()
            stack.enter_context(without_torch())
        yield


@contextmanager
def without_collection() -> Iterator[None]:
    """No cyclic garbage is looked for inside: imports make a million objects that stay. A tenth of their time."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class _Hidden(MetaPathFinder):
    """Makes torch missing for one thread."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        if name == "torch" and threading.get_ident() == self._thread:
            raise ModuleNotFoundError("torch is not imported for TVM's sake", name=name)


@contextmanager
def without_torch() -> Iterator[None]:
    """This thread does not find torch inside, unless it is loaded already.

    TVM imports it where it is installed, to take tensors of its own into packed functions; kernels need no tensors.
    Front ends that are loaded later import torch themselves, and torch's tensors know TVM's protocol.
    """
    hidden = _Hidden()
    sys.meta_path.insert(0, hidden)
    try:
        yield
    finally:
        sys.meta_path.remove(hidden)


class _Text(ctypes.Structure):
    """TVMFFIByteArray."""

    _fields_ = (("data", ctypes.c_char_p), ("size", ctypes.c_size_t))


def err_early() -> None:
    """Has TVM's first C++ error happen before the libraries are loaded whose symbols it would read.

    The first error of a process makes libbacktrace read the symbols of every library there is, and importing TVM meets
    one, as it asks for a type that may be missing: 0.7 s with torch and TVM's compiler, 0.2 s without. Lost are the
    names of C++ functions in TVM's messages. Does nothing where it is too late, or TVM is another.
    """
    if "torch" in sys.modules or "tvm_ffi" in sys.modules:
        return
    package = importlib.util.find_spec("tvm_ffi")
    with suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(str(Path(str(package and package.origin)).parent / "lib" / "libtvm_ffi.so"))
        name, index = b"npas.missing", ctypes.c_int32()
        library.TVMFFITypeKeyToIndex(ctypes.byref(_Text(name, len(name))), ctypes.byref(index))
