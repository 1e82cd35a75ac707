"""Frames of the shell and requests for files, as bytes."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_farm.emulator import sync_protocol as sync
from device_farm.emulator.packets import ProtocolError
from device_farm.emulator.shell_protocol import MAX_FRAME_BYTES, Frame, FrameKind, FrameReader

FRAMES = st.lists(st.builds(Frame, st.sampled_from(FrameKind), st.binary(max_size=100)), max_size=6)


@given(frames=FRAMES, size=st.integers(1, 50))
def test_frames_survive_any_cutting(frames: list[Frame], size: int) -> None:
    data = b"".join(frame.encode() for frame in frames)
    reader = FrameReader()
    assert [frame for i in range(0, len(data), size) for frame in reader.feed(data[i : i + size])] == frames


@pytest.mark.parametrize("data", [struct.pack("<BI", 0, MAX_FRAME_BYTES + 1), struct.pack("<BI", 6, 0)])
def test_frames_that_are_none(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        FrameReader().feed(data)


def read_all(data: bytes, size: int) -> list[object]:
    reader = sync.SyncReader()
    found: list[object] = []
    for i in range(0, len(data), size):
        reader.feed(data[i : i + size])
        while (message := reader.next_message()) is not None:
            found.append(message)
    return found


@given(size=st.integers(1, 60))
def test_requests_survive_any_cutting(size: int) -> None:
    path = b"/data/local/tmp/\xff x"
    length = struct.pack("<I", len(path))
    data = b"STAT" + length + path
    data += b"SND2" + length + path + b"SND2" + struct.pack("<2I", 0o755, 0)
    data += b"DATA" + struct.pack("<I", 3) + b"abc" + b"DONE" + struct.pack("<I", 99)
    data += b"RCV2" + length + path + b"RCV2" + struct.pack("<I", 0) + b"QUIT" + struct.pack("<I", 0)
    name = path.decode(errors="surrogateescape")
    assert read_all(data, size) == [
        sync.Request(b"STAT", name),
        sync.Request(b"SND2", name, (0o755, 0)),
        sync.Data(b"abc"),
        sync.Done(99),
        sync.Request(b"RCV2", name, (0,)),
        sync.Request(b"QUIT"),
    ]


@given(data=st.binary(max_size=200))
def test_any_bytes_are_requests_or_an_error(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        read_all(data, 7)


def test_answers_have_the_sizes_that_adb_expects() -> None:
    status = sync.FileStatus(mode=0o100644, size=5, modified_s=9, inode=3)
    assert sync.encode_status(b"STAT", status) == b"STAT" + struct.pack("<3I", 0o100644, 5, 9)
    assert len(sync.encode_status(b"STA2", status)) == 72
    assert len(sync.encode_entry(b"LIST", "ab", status)) == 20 + 2
    assert len(sync.encode_entry(b"LIS2", "ab", status)) == 76 + 2
    assert [len(sync.encode_end_of_entries(verb)) for verb in (b"LIST", b"LIS2")] == [20, 76]
    assert sync.encode_failure("no") == b"FAIL\x02\0\0\0no"
