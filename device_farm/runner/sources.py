"""Where the C of the runner lies, and how it wants to be compiled.

    python -m ziglang cc -target TRIPLE *CFLAGS -I INCLUDE_DIR RUNNER_SOURCE csrc/*.c table.c kernels.o ... *LDFLAGS
        -o artifact

The runner is one unit: `RUNNER_SOURCE` includes the headers beside it. It may be compiled to an object once a target.
It must not get the kernels' -mcpu: it has to start on any core in order to report that an instruction is missing.
"""

from __future__ import annotations

from pathlib import Path

INCLUDE_DIR = Path(__file__).parent
RUNNER_SOURCE = INCLUDE_DIR / "runner.c"
CFLAGS = ("-std=c11", "-O2", "-g0", "-Wall", "-Wextra", "-Werror")
LDFLAGS = ("-static", "-s")


def source_files() -> tuple[Path, ...]:
    """Every file whose content decides what the runner does: for cache keys."""
    return (RUNNER_SOURCE, *sorted(INCLUDE_DIR.glob("*.h")))
