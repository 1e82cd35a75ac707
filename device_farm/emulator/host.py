"""Many emulated phones on one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from device_farm.emulator.models import find_model
from device_farm.emulator.phone import Phone

# Below Linux's range of ports for outgoing connections, above those that adb searches for phantoms (5555 to 5585).
_PORTS = range(20_000, 32_000)


class PhoneHost:
    """Phones of the named models, on loopback only. `async with` starts and ends them.

    `clock` is "model" (times of a seeded model of each phone) or "host" (what the host's own clock says). Raises
    ValueError for an unknown model or clock.

    Example:
        >>> async with PhoneHost(["emu-x86-fast", "emu-x86-slow"], seed=1) as host:
        ...     print([phone.address for phone in host.phones])
    """

    def __init__(
        self,
        models: Sequence[str],
        *,
        seed: int = 0,
        clock: str = "model",
        pace: float = 1.0,
        folder: Path | None = None,
    ) -> None:
        if clock not in ("model", "host"):
            raise ValueError(f"clock must be 'model' or 'host', got {clock!r}")
        self._models = [find_model(name) for name in models]
        self._seed = seed
        self._clock = clock
        self._pace = pace
        self._parent = folder
        self._folder: Path | None = None
        self.phones: list[Phone] = []

    async def __aenter__(self) -> PhoneHost:
        self._folder = Path(tempfile.mkdtemp(prefix="npas-phones-", dir=self._parent))
        ports = list(_PORTS)
        random.SystemRandom().shuffle(ports)
        try:
            for number, model in enumerate(self._models):
                phone = Phone(
                    model,
                    serial=f"EMU{self._seed:04d}{number:04d}",
                    folder=self._folder / str(number),
                    seed=self._seed * 1000 + number,
                    modelled_times=self._clock == "model",
                    pace=self._pace,
                )
                self.phones.append(phone)
                await _listen_somewhere(phone, ports)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends all phones and what runs on them. May be called twice."""
        phones, self.phones = self.phones, []
        await asyncio.gather(*(phone.close() for phone in phones))
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


async def _listen_somewhere(phone: Phone, ports: list[int]) -> None:
    while True:
        if not ports:
            raise OSError("no port is free for an emulated phone")
        with contextlib.suppress(OSError):
            await phone.listen(ports.pop())
            return
