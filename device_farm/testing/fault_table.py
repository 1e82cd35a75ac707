"""Plays every fault of a phone and prints docs/faults.md. Takes some minutes.

python -m device_farm.testing.fault_table > docs/faults.md
"""

from __future__ import annotations

import os
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import TextIO

from device_farm.testing.fault_scenarios import (
    CONFIG,
    DEADLINE_S,
    MODEL,
    PHONES,
    SCENARIOS,
    FaultLab,
    Seen,
)

_TEXT = f"""# What a farm makes of a phone's faults

Written by `python -m device_farm.testing.fault_table > docs/faults.md`; `tests/device_farm/chaos/test_each_fault.py`
plays the same scenarios and asserts what must hold. {PHONES} emulated phones of one model, the real adb server, the
whole farm; each fault befalls one phone while work is queued, alone. A measurement has {DEADLINE_S:g} s here.

- **noticed**: from the fault's begin, or from the moment the phone got work if that was later, until the farm had it
  in its journal. Times are of a shared, loaded machine.
- **blame**: `lost` (must join again), `device` (a strike: it cools down, and is quarantined after several), `unfit`
  (it rests, the job counts nothing). Nothing is ever blamed on the candidate here: its program is sound.
- **states**: what the phone went through, as seen from outside (short ones may be missed).
- **back**: from the fault's end until the phone had measured again, in seconds; a quarantine was released by hand.
- **jobs**: measured / asked meanwhile. **off**: the largest deviation of a latency that was reported from that
  without the fault, the spread between phones included.

| fault | error | blame | noticed | states | back | jobs | off |
| --- | --- | --- | ---: | --- | ---: | ---: | ---: |
"""


def row(seen: Seen) -> str:
    cells = [
        seen.scenario.name,
        seen.error or "none: it is borne",
        seen.blame or "-",
        "-" if seen.noticed_s is None else f"{seen.noticed_s:.1f} s",
        " > ".join(seen.states),
        "never" if seen.back_s is None else f"{seen.back_s:.1f} s",
        f"{seen.measured}/{seen.asked}",
        f"{seen.wrong:.1%}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    # Ray and its workers write to descriptor 1 whatever they like: it leads to stderr from here on.
    with os.fdopen(os.dup(1), "w") as table:
        os.dup2(2, 1)
        _write(table)


def _write(table: TextIO) -> None:
    import ray

    root = Path(__file__).resolve().parents[2]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=10**8)
    examples: list[str] = []
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            FaultLab(Path(folder), [MODEL] * PHONES, name="faults", pace=1.0, config=CONFIG) as lab,
        ):
            print(_TEXT, end="", file=table, flush=True)
            for scenario in SCENARIOS:
                seen = lab.play(scenario)
                print(row(seen), file=table, flush=True)
                print(scenario.name, seen.message[:120], file=sys.stderr)
                if seen.message:
                    examples.append(_shortened(f"- **{scenario.name}**: {seen.message}"))
    finally:
        ray.shutdown()
    print("\n## What it says\nThe first message of each, as it is in the journal (`Farm.history`):\n", file=table)
    print("\n".join(examples), file=table)


def _shortened(message: str, most: int = 320) -> str:
    line = " ".join(message.split()).replace("|", "\\|").replace("`", "'")
    shown = line if len(line) <= most else f"{line[:most]}..."
    return textwrap.fill(shown, 118, initial_indent="", subsequent_indent="  ", break_on_hyphens=False)


if __name__ == "__main__":
    main()
