from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_farm.emulator.packets import HEADER, MAX_PAYLOAD_BYTES, Command, Packet, PacketReader, ProtocolError

WORDS = st.integers(0, 2**32 - 1)
PACKETS = st.builds(Packet, st.sampled_from(Command), WORDS, WORDS, st.binary(max_size=300))


def read_all(reader: PacketReader, data: bytes) -> list[Packet]:
    reader.feed(data)
    packets = []
    while (packet := reader.next_packet()) is not None:
        packets.append(packet)
    return packets


@given(packets=st.lists(PACKETS, max_size=5), cuts=st.lists(st.integers(0, 2000)))
def test_packets_survive_any_cutting(packets: list[Packet], cuts: list[int]) -> None:
    data = b"".join(packet.encode() for packet in packets)
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    reader = PacketReader()
    got = [packet for a, b in pairwise(places) for packet in read_all(reader, data[a:b])]
    assert got == packets


def test_a_packet_on_the_wire() -> None:
    """Bytes of an adb 1.0.41 server."""
    assert Packet(Command.OKAY, 1, 2).encode().hex() == "4f4b41590100000002000000" + "00000000" * 2 + "b0b4bea6"
    assert Packet(Command.WRTE, 1, 2, b"\xff\x02").encode()[12:20] == bytes([2, 0, 0, 0, 1, 1, 0, 0])


@given(packet=PACKETS, byte=st.integers(0, 3), flip=st.integers(1, 255))
def test_a_wrong_command_or_magic_is_noticed(packet: Packet, byte: int, flip: int) -> None:
    for place in (byte, 20 + byte):
        data = bytearray(packet.encode())
        data[place] ^= flip
        with pytest.raises(ProtocolError):
            read_all(PacketReader(), bytes(data))


@given(payload=st.binary(min_size=1, max_size=50), place=st.integers(0, 49), flip=st.integers(1, 255))
def test_a_damaged_payload_is_noticed_while_checksums_are_sent(payload: bytes, place: int, flip: int) -> None:
    data = bytearray(Packet(Command.WRTE, 1, 1, payload).encode())
    data[HEADER.size + place % len(payload)] ^= flip
    with pytest.raises(ProtocolError, match="checksum"):
        read_all(PacketReader(), bytes(data))
    later = PacketReader()
    later.checks_payload = False
    assert len(read_all(later, bytes(data))) == 1


def test_no_length_makes_a_phone_hoard() -> None:
    for length in (MAX_PAYLOAD_BYTES + 1, 2**32 - 1):
        with pytest.raises(ProtocolError, match=f"a payload of {length} bytes"):
            read_all(PacketReader(), HEADER.pack(Command.CNXN, 0, 0, length, 0, Command.CNXN ^ 0xFFFFFFFF))
