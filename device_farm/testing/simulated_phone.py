"""A phone that exists in numbers only: it heats up, throttles, is used by somebody; for tests of the protocol.

It is a `Transport` with a clock of its own, so that a day of measuring takes seconds. What it runs are files that
`write_program` makes; it answers with the runner's report. Its times are emulated and must never be shown as measured.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from device_farm.compiler.artifact import Artifact
from device_farm.errors import Refused
from device_farm.measurement.types import DeviceConditions, DeviceFacts
from device_farm.transport.base import MAX_OUTPUT_BYTES, Completed, Transport

WINDOWS, ROOM_C = 24, 25.0
_TARGET = "aarch64-neon"


def write_program(folder: Path, key: str, *, ms: float, memory: float = 0.2) -> Artifact:
    """What takes `ms` on a phone at its best, of which the share `memory` waits for memory."""
    path = folder / key
    path.write_text(json.dumps({"key": key, "ms": ms, "memory": memory}))
    return Artifact(key, path, _TARGET, (8, 8, 3), 1, 0, (1.0,), 1e-4, 1, 1)


@dataclass
class SimulatedPhone(Transport):
    """A body that heats up with work and cools by Newton's law; a clock that falls from `throttles_c` on.

    `slow(t)` is one more slowness of the clock, `memory(t)` one of the memory alone.
    """

    seed: int = 0
    unit: float = 1.0  # slowness of this phone for ever
    session_noise: float = 0.003
    power_c: float = 0.0  # how much hotter than the room it gets under load for ever
    throttles_c: float = 70.0
    fall: float = 0.02  # of the clock for every degree above
    tells: bool = True  # its thermal status and zones
    slow: Callable[[float], float] = lambda t: 1.0
    memory: Callable[[float], float] = lambda t: 1.0
    now_s: float = 0.0
    temperature_c: float = ROOM_C
    screen_on: bool = False
    obtained: list[int] = field(default_factory=lambda: [7])
    broken: Callable[[str], str] = lambda key: ""  # "" well, "wrong", "crash"
    runs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._files: dict[str, dict[str, float | str]] = {}
        self._random = np.random.default_rng(self.seed)

    def clock_slowness(self) -> float:
        above = max(0.0, self.temperature_c - self.throttles_c)
        return self.slow(self.now_s) * (1 + self.fall * above)

    def spend(self, seconds: float, *, load: float) -> None:
        """Lets time pass, in steps that the thermal model can follow."""
        steps = max(1, math.ceil(seconds / 0.5))
        for _ in range(steps):
            target = ROOM_C + load * self.power_c
            self.temperature_c += (target - self.temperature_c) * (1 - math.exp(-seconds / steps / 30.0))
            self.now_s += seconds / steps

    def facts(self, *, timeout_s: float = 10.0) -> DeviceFacts:
        return DeviceFacts(serial=f"phone-{self.seed}", model="simulated", target=_TARGET, emulated=True, cpu=7)

    def conditions(self, *, timeout_s: float = 10.0) -> DeviceConditions:
        if not self.tells:
            return DeviceConditions()
        return DeviceConditions(
            cpu_khz={7: round(2_800_000 / self.clock_slowness())},
            temperature_c={"cpu-7": self.temperature_c, "soc": 87_000.0},
            thermal_status=0 if self.temperature_c <= self.throttles_c else 1,
            battery_level=0.8,
            battery_temperature_c=30.0,
            charging=True,
            screen_on=self.screen_on,
        )

    def push(self, local: Path, remote_name: str, *, timeout_s: float = 30.0) -> None:
        self._files[remote_name] = json.loads(local.read_text())

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | None = None,
        timeout_s: float,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
    ) -> Completed:
        if argv[0] not in self._files:
            raise Refused(f"no such program: {argv[0]}")
        program = self._files[argv[0]]
        key, ms, share = str(program["key"]), float(program["ms"]), float(program["memory"])
        self.runs.append(key)
        if self.broken(key) == "crash":
            return Completed(139, b"", b"")
        self.spend(0.05, load=1.0)
        session = 1 + self.session_noise * self._random.standard_normal()
        samples: list[int] = []
        windows: list[tuple[int, int]] = []
        spins: list[int] = []
        for window in range(WINDOWS + 1):
            clock = self.clock_slowness()
            spins.append(round(80_000 * clock))
            windows.append((len(samples), round(12_000 * clock * (1 + 0.002 * self._random.random()))))
            if window < WINDOWS:
                slowness = (1 - share) * clock + share * self.memory(self.now_s)
                noise = 1 + 0.002 * self._random.random(2)
                samples += [round(1e6 * ms * self.unit * slowness * session * n) for n in noise]
                self.spend(0.2 / WINDOWS, load=1.0)
        ends = [
            {"cpu_khz": {"7": 224_000_000_000 // s}, "thermal_millicelsius": [], "load_1min": 1.0, "spin_ns": s}
            for s in (spins[0], spins[-1])
        ]
        report = {
            "schema": 1,
            "mode": "bench",
            "key": key,
            "input_seed": 0,
            "denormals": "flushed",
            "output": [2.0 if self.broken(key) == "wrong" else 1.0],
            "output_repeats": True,
            "affinity": {"asked": 7, "obtained": self.obtained},
            "warmup_runs": 1,
            "samples_ns": samples,
            "windows": windows,
            "profile": None,
            "before": ends[0],
            "after": ends[1],
            "voluntary_switches": 0,
            "involuntary_switches": 0,
            "page_faults": 0,
        }
        return Completed(0, json.dumps(report).encode(), b"")

    def pull(self, remote_name: str, *, timeout_s: float = 30.0) -> bytes:
        raise Refused("nothing is written here")

    def remove(self, remote_name: str, *, timeout_s: float = 10.0) -> None:
        self._files.pop(remote_name, None)

    def close(self) -> None:
        return


# Phones of a kind, by seed: what a protocol must survive.
SCENARIOS: dict[str, Callable[[int], SimulatedPhone]] = {
    "cool": lambda seed: SimulatedPhone(seed),
    "noisy": lambda seed: SimulatedPhone(seed, session_noise=0.006),
    "heats up, and says so": lambda seed: SimulatedPhone(seed, power_c=55.0 + seed, throttles_c=50.0),
    "heats up, and says nothing": lambda seed: SimulatedPhone(seed, power_c=40.0 + seed, throttles_c=45.0, tells=False),
    "a ramp": lambda seed: SimulatedPhone(seed, slow=lambda t: 1 + max(0.0, t - 20) * 1e-3 * (1 + seed)),
    "half the clock at times": lambda seed: SimulatedPhone(
        seed, slow=lambda t: 1.0 if t % (17 + seed) < 11 else 2.0, tells=False
    ),
    "a little slower at times": lambda seed: SimulatedPhone(
        seed, slow=lambda t: 1 if t % 60 < 40 else 1.01 + 0.01 * seed
    ),
    "memory at half its speed at times": lambda seed: SimulatedPhone(seed, memory=lambda t: 1 if t % 60 < 40 else 2.0),
    "somebody's program at times": lambda seed: SimulatedPhone(seed, slow=lambda t: 1 if t % 9 < 8 else 1.3),
}
