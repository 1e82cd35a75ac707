"""What speaks against an artifact: which devices it failed on, and which it might still harm."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Mapping

from device_farm.fleet.words import Failed, Failure, Policy

# How many artifacts a single settled job may look at for the oldest that nobody waits for.
_LOOK_AT = 4


class Evidence:
    """Failures of artifacts' own, over all jobs and models. The oldest beyond `policy.remember` are forgotten."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._failures: OrderedDict[str, list[Failure]] = OrderedDict()
        self._running: defaultdict[str, dict[str, None]] = defaultdict(dict)  # artifact -> devices that run it now
        self._open: defaultdict[str, dict[str, None]] = defaultdict(dict)  # artifact -> keys of its open jobs
        self._suspected: defaultdict[str, dict[str, None]] = defaultdict(dict)  # artifact -> devices; see restarts.py

    def of(self, artifact_key: str) -> tuple[Failure, ...]:
        return tuple(self._failures.get(artifact_key, ()))

    def all(self) -> Mapping[str, tuple[Failure, ...]]:
        return {artifact_key: tuple(failures) for artifact_key, failures in self._failures.items()}

    def add(self, artifact_key: str, failure: Failure) -> None:
        self._failures.setdefault(artifact_key, []).append(failure)

    def accusers(self, artifact_key: str) -> set[str]:
        failures = self._failures.get(artifact_key)
        return {failure.serial for failure in failures} if failures else set()

    def is_poisoned(self, artifact_key: str) -> bool:
        return len(self.accusers(artifact_key)) >= self._policy.poison_devices

    def poisoned(self, artifact_key: str) -> Failed:
        """The answer to whoever asks for a poisoned artifact."""
        evidence = self.of(artifact_key)
        tale = "; ".join(map(str, evidence))
        message = f"failed on {len(self.accusers(artifact_key))} different devices: {tale}"
        return Failed("Poisoned", message, evidence, final=True)

    def exposed(self, artifact_key: str) -> set[str]:
        """The devices that it has harmed, may have harmed, or that run it now and may come to harm, too."""
        running, suspected = self._running.get(artifact_key, ()), self._suspected.get(artifact_key, ())
        return self.accusers(artifact_key).union(running, suspected)

    def is_full(self, artifact_key: str) -> bool:
        """No further device may be exposed to it now."""
        return len(self.exposed(artifact_key)) >= self._policy.poison_devices

    def suspect(self, artifact_key: str, serial: str) -> None:
        """The device may have come to harm by it."""
        self._suspected[artifact_key][serial] = None

    def suspects(self, artifact_key: str) -> list[str]:
        return list(self._suspected.get(artifact_key, ()))

    def trust(self, artifact_key: str, serial: str) -> None:
        """It has not, or has testified by now."""
        suspected = self._suspected[artifact_key]
        suspected.pop(serial, None)
        if not suspected:
            del self._suspected[artifact_key]

    def begin(self, artifact_key: str, serial: str) -> None:
        self._running[artifact_key][serial] = None

    def end(self, artifact_key: str, serial: str) -> None:
        running = self._running[artifact_key]
        del running[serial]
        if not running:
            del self._running[artifact_key]

    def opened(self, artifact_key: str, key: str) -> None:
        """Somebody waits for a job of the artifact: its evidence is not forgotten meanwhile."""
        self._open[artifact_key][key] = None

    def closed(self, artifact_key: str, key: str) -> None:
        keys = self._open[artifact_key]
        del keys[key]
        if not keys:
            del self._open[artifact_key]
        self._trim()

    def open_keys(self, artifact_key: str) -> list[str]:
        return list(self._open.get(artifact_key, ()))

    def _trim(self) -> None:
        for _ in range(_LOOK_AT):
            if len(self._failures) <= self._policy.remember:
                return
            oldest = next(iter(self._failures))
            if oldest in self._open:
                self._failures.move_to_end(oldest)
            else:
                del self._failures[oldest]
