"""Every benchmark, one after the other, and the page about them: `make bench`, or

    python -m benchmarks.all [--quick] [--only networks kernels] [--limit-min 180]

A full run writes benchmarks/results/*.json, docs/performance.md and its plots; it takes about two hours on one core
of a machine that should do nothing else. `--quick` is a look of some minutes: fewer rounds, and
nothing committed is overwritten. A script that is not there yet, or that the time limit leaves no time for, is named.
The exit status is 1 if any failed or missed a bar.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.plots import CHAPTERS, write_page

HERE = Path(__file__).resolve().parent
# Those that other pages tell of.
OTHERS = (
    "adb_calls", "fast_evaluation", "float16", "microkernels", "protocol", "repeatability", "searchers", "small_blocks",
)  # fmt: skip
FULL_LIMIT_MIN, QUICK_LIMIT_MIN = 240.0, 60.0


@dataclass(frozen=True)
class Outcome:
    name: str
    words: str
    seconds: float = 0.0
    failed: bool = False

    def __str__(self) -> str:
        return f"{self.name:16} {self.seconds:6.0f} s  {self.words}"


def run_all(names: Sequence[str], *, quick: bool, limit_s: float, results: Path) -> list[Outcome]:
    """Run the scripts in order; no script is started after the limit, and the one that reaches it is ended."""
    end = time.monotonic() + limit_s
    outcomes = []
    for name in names:
        outcome = _run(name, quick=quick, limit_s=end - time.monotonic(), results=results)
        print(f"\n--- {outcome}", flush=True)
        outcomes.append(outcome)
    return outcomes


def _run(name: str, *, quick: bool, limit_s: float, results: Path) -> Outcome:
    script = HERE / f"{name}.py"
    if not script.exists():
        return Outcome(name, "there is no such benchmark yet")
    if limit_s <= 0:
        return Outcome(name, "not started: the time is up", failed=True)
    started = time.monotonic()
    command = [sys.executable, str(script), "--json", str(results / f"{name}.json"), *["--quick"] * quick]
    print(f"\n=== {' '.join(command)}", flush=True)
    try:
        status = subprocess.run(command, cwd=HERE.parent, timeout=limit_s).returncode
    except subprocess.TimeoutExpired:
        return Outcome(name, "ended: the time is up", time.monotonic() - started, failed=True)
    words = "done" if status == 0 else f"exit status {status}: a bar is missed, or see above"
    return Outcome(name, words, time.monotonic() - started, failed=status != 0)


def main() -> int:
    options = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    options.add_argument("--quick", action="store_true", help="a look, not a result: nothing committed is overwritten")
    options.add_argument("--only", nargs="+", choices=[*CHAPTERS, *OTHERS], default=[*CHAPTERS, *OTHERS])
    options.add_argument(
        "--limit-min", type=float, help=f"all together (default: {FULL_LIMIT_MIN:g}, quick {QUICK_LIMIT_MIN:g})"
    )
    arguments = options.parse_args()
    limit_min = arguments.limit_min or (QUICK_LIMIT_MIN if arguments.quick else FULL_LIMIT_MIN)
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as scratch:
        results = Path(scratch) if arguments.quick else HERE / "results"
        outcomes = run_all(arguments.only, quick=arguments.quick, limit_s=60 * limit_min, results=results)
    if not arguments.quick:
        print(f"docs/performance.md: {', '.join(write_page(results, HERE.parent / 'docs'))}")
    print("\n" + "\n".join(map(str, outcomes)))
    return 1 if any(outcome.failed for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
