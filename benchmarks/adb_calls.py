"""What one call to a phone costs: our transport, and adbutils where it has such a call.

    python benchmarks/adb_calls.py [--quick] [--json FILE]

An emulated phone behind the real adb server, all on this machine. The emulated phone's own work is in every figure.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import adbutils

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import _harness as harness
from device_farm.compiler.target import AVX2
from device_farm.testing.build import build_device_program
from device_farm.testing.phones import EmulatedPhones
from device_farm.transport.adb.server import AdbServer
from device_farm.transport.adb.transport import AdbTransport

FILE_BYTES = 100_000
_FOLDER = "/data/local/tmp/npas"
_PEERS = {"run": "adbutils shell", "push": "adbutils push", "pull": "adbutils pull", "devices": "adbutils devices"}


def main(arguments: Sequence[str] | None = None) -> int:
    options = harness.parser("What one call to a phone costs").parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        with (
            AdbServer.start_private(home=Path(folder)) as server,
            EmulatedPhones(["emu-x86-fast"], pace=0.0) as phones,
        ):
            server.connect(phones.addresses[0])
            calls = _calls(server, phones.addresses[0], Path(folder))
            sessions = {name: _session(call) for name, call in calls.items()}
            timings = harness.interleave(sessions, rounds=4 if options.quick else 12, seconds=0.3)
    rows = []
    for name, timing in timings.items():
        if name in _PEERS.values():
            continue
        peer = timings.get(_PEERS.get(name, ""))
        ratio = f"{peer.over(timing):.1f}x" if peer is not None else "-"
        rows.append([name, timing.ms, timing.typical_ms, "-" if peer is None else f"{peer.ms:.3f}", ratio])
    print(harness.table(["call", "ms", "typical ms", "adbutils ms", "adbutils / ours"], rows))
    results = {"calls": {name: timing.to_json() for name, timing in timings.items()}, "file_bytes": FILE_BYTES}
    harness.finish("adb_calls", results, options.json)
    return 0


def _calls(server: AdbServer, serial: str, folder: Path) -> dict[str, Callable[[], object]]:
    file = folder / "file"
    file.write_bytes(bytes(FILE_BYTES))
    phone = AdbTransport(server, serial, client="calls")
    phone.push(build_device_program(folder, triple=AVX2.triple), "program")
    phone.push(file, "file")
    client = adbutils.AdbClient(host=server.host, port=server.port)
    peer = client.device(serial)
    peer.sync.push(file, f"{_FOLDER}/peer")
    return {
        "devices": server.devices,
        "facts, first time": lambda: AdbTransport(server, serial, client="facts").facts(),
        "facts, known": phone.facts,
        "conditions": phone.conditions,
        "push": lambda: phone.push(file, "file"),
        "run": lambda: phone.run(["program", "exit", "0"], timeout_s=10),
        "pull": lambda: phone.pull("file"),
        "remove": lambda: phone.remove("none"),
        "adbutils devices": client.device_list,
        "adbutils shell": lambda: peer.shell([f"{_FOLDER}/calls/program", "exit", "0"]),
        "adbutils push": lambda: peer.sync.push(file, f"{_FOLDER}/peer"),
        "adbutils pull": lambda: peer.sync.read_bytes(f"{_FOLDER}/peer"),
    }


def _session(call: Callable[[], object]) -> harness.Session:
    return lambda seconds, _: harness.timed(call, seconds)


if __name__ == "__main__":
    raise SystemExit(main())
