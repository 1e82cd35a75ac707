"""The machine code of a kernel, to be looked at: LLVM's text, its inner loops, and llvm-mca's opinion of them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence

from device_farm.compiler.kernels.spec import KernelSpec
from device_farm.compiler.target import Target
from device_farm.errors import CompileError

_LABEL = re.compile(r"(\.LBB\d+_\d+):")
_BRANCH = re.compile(r"(?:b\.\w+|b|cbn?z\s+\w+,|tbn?z\s+\w+,\s*#\d+,|j\w+)\s+(\.LBB\d+_\d+)$")
_NOISE = re.compile(r"\.(?!LBB)")


def kernel_assembly(spec: KernelSpec, target: Target) -> str:
    """LLVM's assembly of the kernel. Imports TVM."""
    from device_farm.compiler.kernels import emit

    text: str = emit.build_module(spec, symbol="kernel", target=target).inspect_source("asm")
    return text


def inner_loops(assembly: str) -> list[tuple[str, ...]]:
    """Instructions of every loop without a label inside, as they stand; the branch back is the last one."""
    lines = [line.partition("//")[0].replace("\t", " ").strip() for line in assembly.splitlines()]
    lines = [line for line in lines if line and not _NOISE.match(line)]
    starts: dict[str, int] = {}
    loops = []
    for index, line in enumerate(lines):
        if label := _LABEL.match(line):
            starts[label[1]] = index
        elif (branch := _BRANCH.match(line)) and branch[1] in starts:
            body = lines[starts[branch[1]] + 1 : index + 1]
            if not any(_LABEL.match(other) for other in body):
                loops.append(tuple(body))
    return loops


def hottest_loop(assembly: str, instruction: str) -> tuple[str, ...]:
    """The inner loop with most of one instruction. Raises ValueError if there is no inner loop."""
    return max(inner_loops(assembly), key=lambda body: sum(line.startswith(instruction) for line in body))


def modelled_cycles(body: Sequence[str], target: Target, *, core: str, rounds: int = 200) -> float:
    """Cycles of one round of a loop by llvm-mca's model of `core` ("cortex-a55"). Raises CompileError."""
    if (tool := shutil.which("llvm-mca")) is None:
        raise CompileError("llvm-mca is not installed (Debian: apt-get install llvm)")
    text = "\n".join(line for line in body if not _BRANCH.match(line))
    command = [tool, f"-mtriple={target.triple}", f"-mcpu={core}", f"-iterations={rounds}"]
    if target.element == "float16":
        command.append("-mattr=+fullfp16")
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    found = re.search(r"Total Cycles:\s+(\d+)", done.stdout)
    if done.returncode != 0 or found is None:
        raise CompileError(f"llvm-mca failed on a loop for {core}: {done.stderr.strip()[-500:]}")
    return int(found[1]) / rounds
