"""One emulated phone: its model, files, programs and faults behind a port that the real adb server connects to."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import socket
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from device_farm.emulator import system
from device_farm.emulator.clock import State, phone_speed
from device_farm.emulator.connection import FEATURES, Trust
from device_farm.emulator.descriptors import Pipe
from device_farm.emulator.faults import Faults, PhoneFault
from device_farm.emulator.files import PhoneFiles
from device_farm.emulator.link import Link, Service
from device_farm.emulator.phone_model import PhoneModel
from device_farm.emulator.processes import ProcessTable, Run
from device_farm.emulator.services import find_service
from device_farm.emulator.system_files import SystemFiles
from device_farm.emulator.thermal import ThermalState

MAX_LINKS = 8
_CLOSING_LINKS = (PhoneFault.UNPLUG, PhoneFault.UNAUTHORIZED, PhoneFault.OFFLINE, PhoneFault.REBOOT)


@dataclass
class Battery:
    level_percent: int = 85
    charging: bool = True


@dataclass(frozen=True)
class PhoneStatus:
    """Evidence for tests and people."""

    address: str
    serial: str
    model: str
    faults: tuple[str, ...]
    links: int
    started: int  # programs, in all
    alive: int  # programs now, their children included
    runs: tuple[Run, ...]


class Phone:
    """Made by a PhoneHost; lives on its event loop. `folder` is this phone's alone and is deleted with it."""

    def __init__(
        self,
        model: PhoneModel,
        *,
        serial: str,
        folder: Path,
        seed: int = 0,
        modelled_times: bool = True,
        pace: float = 1.0,
    ) -> None:
        self.model = model
        self.serial = serial
        self.seed = seed
        self.modelled_times = modelled_times
        self.pace = pace
        self.battery = Battery()
        self.screen_on = False
        self.thermal = ThermalState(model.thermal)
        self.speed = phone_speed(model, seed)
        self.sessions: Counter[str] = Counter()  # runs of each artifact
        self.faults = Faults()
        self.numbers = itertools.count(1)
        self.processes = ProcessTable(uuid.uuid4().hex)
        self.boot_id = str(uuid.uuid4())
        self.port = 0
        self._folder = folder
        self.files = PhoneFiles(folder, SystemFiles(self))
        self._made_s = self._booted_s = time.monotonic()
        self._skipped_s = 0.0  # of the phone's own time, where programs are not paced
        self._server: asyncio.Server | None = None
        self._links: set[Link] = set()
        self._link_tasks: set[asyncio.Task[None]] = set()
        self._not_mute = asyncio.Event()
        self._not_mute.set()
        self._kept_open: list[Pipe] = []
        self._boot: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def address(self) -> str:
        """What `adb connect` takes, and adb's serial of this phone."""
        return f"127.0.0.1:{self.port}"

    async def listen(self, port: int) -> None:
        """Raises OSError if the port is taken."""
        self._server = await asyncio.start_server(
            self._connected, host="127.0.0.1", port=port, backlog=128, family=socket.AF_INET
        )
        self.port = port

    async def close(self) -> None:
        """Ends links and programs, deletes the folder."""
        self._closed = True
        if self._boot is not None:
            self._boot.cancel()
        self._close_server()
        self._close_links()
        self._not_mute.set()
        self.processes.kill_all()
        while self._link_tasks:
            await asyncio.wait(self._link_tasks)
        self.processes.kill_all()
        self._release()
        shutil.rmtree(self._folder, ignore_errors=True)

    # -- faults

    def inject(self, fault: PhoneFault, *, value: float | None = None, times: int | None = None) -> None:
        """A fault begins, or happens; see PhoneFault."""
        self.faults.add(fault, value=value, times=times)
        if fault is PhoneFault.MUTE:
            self._not_mute.clear()
        elif fault is PhoneFault.DISK_FULL:
            self.files.full = True
        elif fault is PhoneFault.LINK_GARBAGE:
            if self._links and self.faults.strikes(fault):
                for link in self._links:
                    link.send_garbage()
        elif fault in _CLOSING_LINKS:
            if fault is PhoneFault.REBOOT:
                self._shut_down()
                self._begin_boot(self.faults.value(fault) or 0.0)
            elif fault is PhoneFault.UNPLUG:
                self._close_server()
            self._close_links()

    def heal(self, fault: PhoneFault | None = None) -> None:
        """One fault ends, or all do."""
        for ended in [fault] if fault is not None else list(self.faults):
            self.faults.remove(ended)
            if ended is PhoneFault.MUTE:
                self._not_mute.set()
                for link in self._links:
                    link.flush()
            elif ended is PhoneFault.DISK_FULL:
                self.files.full = False
            elif ended is PhoneFault.UNAUTHORIZED:
                for link in self._links:
                    link.authorize()
            elif ended is PhoneFault.ORPHAN:
                self._release()
        if self._server is None and PhoneFault.REBOOT not in self.faults and not self._closed:
            self._begin_boot(0.0)

    def keep_open(self, pipes: Iterable[Pipe]) -> None:
        """Those of programs that a lost link has left behind."""
        self._kept_open += pipes

    def status(self) -> PhoneStatus:
        return PhoneStatus(
            address=self.address,
            serial=self.serial,
            model=self.model.name,
            faults=tuple(self.faults),
            links=len(self._links),
            started=self.processes.started,
            alive=self.processes.count_programs(),
            runs=tuple(self.processes.runs),
        )

    def _shut_down(self) -> None:
        self._close_server()
        self.processes.kill_all()
        self._release()
        self.boot_id = str(uuid.uuid4())
        self._booted_s = time.monotonic()

    def _begin_boot(self, delay_s: float) -> None:
        if self._boot is not None:
            self._boot.cancel()
        self._boot = asyncio.ensure_future(self._boot_after(delay_s))

    async def _boot_after(self, delay_s: float) -> None:
        """Listens on the same port again, unless the phone is unplugged by then."""
        await asyncio.sleep(delay_s)
        self.faults.remove(PhoneFault.REBOOT)
        while self._server is None and PhoneFault.UNPLUG not in self.faults and not self._closed:
            try:
                await self.listen(self.port)
            except OSError:
                await asyncio.sleep(0.05)

    def _close_server(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _close_links(self) -> None:
        for link in list(self._links):
            link.close()

    def _release(self) -> None:
        for pipe in self._kept_open:
            pipe.close()
        self._kept_open.clear()

    # -- links

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closed or PhoneFault.OFFLINE in self.faults or len(self._links) >= MAX_LINKS:
            writer.transport.abort()
            return
        link = Link(
            reader,
            writer,
            banner=self._banner(),
            trust=Trust.NO_KEY if PhoneFault.UNAUTHORIZED in self.faults else Trust.ANY_KEY,
            open_service=self._open_service,
            before_each=self._delay,
            is_mute=lambda: PhoneFault.MUTE in self.faults,
        )
        self._links.add(link)
        task = asyncio.ensure_future(link.run())
        self._link_tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._links.discard(link)
            self._link_tasks.discard(task)

        task.add_done_callback(ended)

    def _banner(self) -> bytes:
        name = self.model.name
        product = f"ro.product.name={name};ro.product.model={name};ro.product.device={name};"
        return f"device::{product}features={','.join(FEATURES)}".encode()

    def _open_service(self, name: bytes) -> Service | None:
        return find_service(self, name)

    async def _delay(self) -> None:
        await self._not_mute.wait()
        delay_s = self.faults.value(PhoneFault.SLOW)
        if delay_s is not None:
            await asyncio.sleep(delay_s)

    # -- what the system says

    def properties(self) -> dict[str, str]:
        return system.properties(self)

    def dumpsys(self, service: str) -> str | None:
        return system.dumpsys(self, service)

    def uname(self) -> Mapping[str, str]:
        return system.uname(self.model)

    def cpu_khz(self, core: int) -> int:
        """The clock of a core now."""
        return self.clocks(self.warmth())[core]

    def state(self, thermal: ThermalState | None = None) -> State:
        """Clocks and temperatures now, or as they will be when it is so warm."""
        if thermal is None:
            thermal = self.thermal
            thermal.advance(self.now_s(), load=0.0)
        return State(
            khz=self.clocks(thermal),
            thermal_millicelsius=system.thermal_millicelsius(thermal),
            load_1min=self.load(),
        )

    def clocks(self, thermal: ThermalState) -> tuple[int, ...]:
        """Of each core, in kHz, when it is so warm."""
        throttled = self.faults.value(PhoneFault.THROTTLED)
        return self.model.clocks(thermal.clock_factor * (1.0 if throttled is None else throttled))

    def skip(self, seconds: float) -> None:
        """The phone's own time goes on while the host's does not."""
        self._skipped_s += seconds

    def heat_to(self, soc_c: float) -> None:
        """The phone lies in the sun; it cools from now on."""
        self.thermal.advance(self.now_s(), load=0.0)
        self.thermal.heat_to(soc_c)

    def now_s(self) -> float:
        """Since it was made, by the phone's own time."""
        return time.monotonic() - self._made_s + self._skipped_s

    def warmth(self) -> ThermalState:
        """Temperatures now."""
        self.thermal.advance(self.now_s(), load=0.0)
        return self.thermal

    def uptime_s(self) -> float:
        return time.monotonic() - self._booted_s

    def load(self) -> float:
        return float(sum(process.host_pid is not None for process in self.processes))
