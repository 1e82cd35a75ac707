"""What LLVM made of a kernel: its text, and the innermost loops that multiply and add.

A kernel whose accumulators have left the registers is right and ten times too slow, so tests read this text. It comes
from TVM's own LLVM and needs no other tool.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from device_farm.compiler.kernels.spec import KernelSpec
from device_farm.compiler.target import Target

_LABEL = re.compile(r"^(\.L\w+):")
_BRANCH = re.compile(r"^(?:b|b\.\w+|cbn?z|tbn?z|j\w+)\s+(?:.*,\s*)?(\.L\w+)$")
_MULTIPLY_ADD = re.compile(r"^(fmla|vfn?madd\d*[ps][sdh])\b")
_STACK = re.compile(r"\[sp\b|\(%[re]sp\b")
_MEMORY = re.compile(r"\[|\(")
_STORE = re.compile(r"^(st\w+\s|v?mov\w+\s+%[a-z]mm\d+, )")


@dataclass(frozen=True)
class InnerLoop:
    """The instructions of one innermost loop, comments and directives left out."""

    instructions: tuple[str, ...]

    @property
    def multiply_adds(self) -> int:
        return sum(bool(_MULTIPLY_ADD.match(line)) for line in self.instructions)

    @property
    def vector_loads(self) -> int:
        """Loads into vector registers, by instruction; a multiply-add with an operand in memory is one."""
        return sum(_loads_vector(line) for line in self.instructions)

    @property
    def stack_accesses(self) -> tuple[str, ...]:
        return tuple(line for line in self.instructions if _STACK.search(line))

    @property
    def vector_stores(self) -> tuple[str, ...]:
        return tuple(line for line in self.instructions if _STORE.match(line) and _MEMORY.search(line))


def kernel_assembly(spec: KernelSpec, target: Target) -> str:
    """The text of a kernel, generated anew."""
    from device_farm.compiler.kernels import emit  # TVM takes seconds to import

    text: str = emit.build_module(spec, symbol="kernel", target=target).inspect_source("s")
    return text


def inner_loops(text: str) -> tuple[InnerLoop, ...]:
    """The innermost loops that hold a multiply-add."""
    found = (InnerLoop(tuple(body)) for body in _bodies(text))
    return tuple(loop for loop in found if loop.multiply_adds)


def _bodies(text: str) -> Iterator[list[str]]:
    lines = [re.split(r"\s+(?:# |//)", line.replace("\t", " ").strip())[0].strip() for line in text.splitlines()]
    places = {label[1]: index for index, line in enumerate(lines) if (label := _LABEL.match(line))}
    for index, line in enumerate(lines):
        branch = _BRANCH.match(line)
        start = places.get(branch[1], index + 1) if branch else index + 1
        if start > index:
            continue
        body = [part for part in lines[start : index + 1] if part and not re.match(r"^(\.|#|//|;)", part)]
        if not any(_BRANCH.match(part) for part in body[:-1]):
            yield body


def _loads_vector(line: str) -> bool:
    if _STACK.search(line) or not _MEMORY.search(line):
        return False
    if line.startswith("ld"):
        return bool(re.match(r"^ld\w*\s+\{?[qdsv]\d", line))
    return bool(re.match(r"^v(fn?madd\w+|broadcast\w+|movup?s?|movap?s?)\b.*\(.*%[xyz]mm\d+$", line))
