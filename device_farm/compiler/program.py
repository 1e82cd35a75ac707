"""The executable of a set of kernels, without a plan: linked once, and then shared by all networks of these kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from device_farm.compiler.cache import ObjectCache
from device_farm.compiler.kernels.spec import FLOAT, INT, KernelSpec, Parameters
from device_farm.compiler.link import link, support_objects, support_version
from device_farm.compiler.target import Target
from device_farm.compiler.version import digest

MOST_PROGRAMS = 256  # that the cache keeps: a fifth of a megabyte each, made again in a tenth of a second
GetKernel = Callable[[int], tuple[KernelSpec, bytes]]


def program_key(symbols: Sequence[str], target: Target) -> str:
    """Of the program of these kernels, in this order."""
    return digest([support_version(target), *symbols])[:32]


def make_program(symbols: Sequence[str], kernel: GetKernel, *, target: Target, cache: ObjectCache) -> bytes:
    """The executable. Kernel i has symbol i; `kernel` is asked only where the cache has no program of them.

    Raises CompileError, and what `kernel` raises.
    """
    key, made = program_key(symbols, target), []

    def make(path: Path) -> None:
        made.append(path)
        kernels = [kernel(index) for index in range(len(symbols))]
        files = []
        for index, content in enumerate([*(content for _, content in kernels), *support_objects(cache, target)]):
            files.append(path.parent / f"{index}.o")
            files[-1].write_bytes(content)
        table = path.parent / "table.c"
        table.write_text(table_text(key, symbols, [spec.parameters for spec, _ in kernels]))
        link(table, files, target=target, output=path, cache_dir=cache.folder)

    content = cache.get_or_make(f"program-{key}", make)
    if made:
        cache.trim("program-", most=MOST_PROGRAMS)
    return content


def table_text(key: str, symbols: Sequence[str], signatures: Sequence[Parameters]) -> str:
    """table.c: kernels by number, each with the function that knows its signature (csrc/program.h)."""
    kinds = [tuple(_member(kind) for _, kind in parameters) for parameters in signatures]
    callers = {kind: f"call_{index}" for index, kind in enumerate(dict.fromkeys(kinds))}
    parts = ['#include "program.h"']
    for kind, caller in callers.items():
        types = ", ".join(_C_TYPES[member] for member in kind)
        values = ", ".join(f"arguments[{index}].{member}" for index, member in enumerate(kind))
        parts.append(
            f"static void {caller}(npas_function_t *function, const npas_value_t *arguments) {{\n"
            f"  ((void (*)({types}))function)({values});\n}}"
        )
    parts += [f"npas_function_t {symbol};" for symbol in symbols]
    rows = "".join(
        f"  {{{callers[kind]}, {symbol}, {len(kind)}}},\n" for symbol, kind in zip(symbols, kinds, strict=True)
    )
    parts.append(f"const npas_kernel_t npas_kernels[] = {{\n{rows}  {{0, 0, 0}}\n}};")
    parts.append(f'const int32_t npas_kernel_count = {len(symbols)};\nconst char npas_program_key[] = "{key}";\n')
    return "\n".join(parts)


_C_TYPES = {"pointer": "void *", "integer": "int32_t", "real": "float"}


def _member(kind: str) -> str:
    """The member of npas_value_t that holds an argument of this C type."""
    return {INT: "integer", FLOAT: "real"}.get(kind, "pointer")
