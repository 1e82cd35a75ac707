"""The innermost loops of a kernel that multiply and add, and what they do with registers and memory.

A kernel whose accumulators have left the registers is right and ten times too slow, so tests read these loops. The text
comes from TVM's own LLVM and needs no other tool.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from device_farm.compiler.assembly import inner_loops

_MULTIPLY_ADD = re.compile(r"^(fmla|vfn?madd\d*[ps][sdh])\b")
_STACK = re.compile(r"\[sp\b|\(%[re]sp\b")
_MEMORY = re.compile(r"\[|\(")
_STORE = re.compile(r"^(st\w+\s|v?mov\w+\s+%[a-z]mm\d+, )")


@dataclass(frozen=True)
class InnerLoop:
    """The instructions of one innermost loop, comments left out."""

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


def multiplying_loops(text: str) -> tuple[InnerLoop, ...]:
    """The innermost loops of an assembly text that hold a multiply-add."""
    found = (InnerLoop(tuple(re.split(r"\s+# ", line)[0] for line in body)) for body in inner_loops(text))
    return tuple(loop for loop in found if loop.multiply_adds)


def _loads_vector(line: str) -> bool:
    if _STACK.search(line) or not _MEMORY.search(line):
        return False
    if line.startswith("ld"):
        return bool(re.match(r"^ld\w*\s+\{?[qdsv]\d", line))
    return bool(re.match(r"^v(fn?madd\w+|broadcast\w+|movup?s?|movap?s?)\b.*\(.*%[xyz]mm\d+$", line))
