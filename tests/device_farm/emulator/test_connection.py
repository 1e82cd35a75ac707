"""The phone's end of a link, without sockets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_farm.emulator.connection import (
    MAX_STREAMS,
    Acknowledged,
    AuthType,
    Closed,
    Connection,
    Event,
    Online,
    Opened,
    Received,
    Trust,
)
from device_farm.emulator.packets import VERSION, VERSION_WITH_CHECKSUM, Command, Packet, PacketReader, ProtocolError

HELLO = Packet(Command.CNXN, VERSION, 1 << 20, b"host::features=shell_v2\0")


def answers(connection: Connection) -> list[Packet]:
    reader = PacketReader()
    reader.checks_payload = False
    reader.feed(connection.take_output())
    packets = []
    while (packet := reader.next_packet()) is not None:
        packets.append(packet)
    return packets


def send(connection: Connection, *packets: Packet) -> list[Event]:
    return connection.receive(b"".join(packet.encode() for packet in packets))


def online(**options: object) -> Connection:
    connection = Connection(b"device::", trust=Trust.OPEN, **options)  # type: ignore[arg-type]
    assert send(connection, HELLO) == [Online(b"host::features=shell_v2")]
    (greeting,) = answers(connection)
    assert (greeting.command, greeting.payload) == (Command.CNXN, b"device::")
    return connection


def opened(connection: Connection, number: int = 7) -> int:
    (event,) = send(connection, Packet(Command.OPEN, number, 0, b"shell:\0"))
    assert isinstance(event, Opened) and event.service == b"shell:"
    connection.accept(event.stream)
    assert answers(connection) == [Packet(Command.OKAY, event.stream, number)]
    return event.stream


@pytest.mark.parametrize("kind", [AuthType.SIGNATURE, AuthType.PUBLIC_KEY])
def test_any_key_is_believed(kind: AuthType) -> None:
    connection = Connection(b"device::", trust=Trust.ANY_KEY, token=b"t" * 20)
    assert send(connection, HELLO) == [] and not connection.online
    assert answers(connection) == [Packet(Command.AUTH, AuthType.TOKEN, 0, b"t" * 20)]
    assert len(send(connection, Packet(Command.AUTH, kind, 0, b"key"))) == 1
    assert connection.online


def test_an_unknown_key_waits_for_the_owner() -> None:
    connection = Connection(b"device::", trust=Trust.NO_KEY)
    send(connection, HELLO, Packet(Command.AUTH, AuthType.SIGNATURE, 0, b"signature"))
    assert [packet.command for packet in answers(connection)] == [Command.AUTH, Command.AUTH]  # the next key, please
    assert send(connection, Packet(Command.AUTH, AuthType.PUBLIC_KEY, 0, b"key")) == []
    assert answers(connection) == [] and not connection.online
    assert connection.authorize() == [Online(b"host::features=shell_v2")]
    assert answers(connection)[0].command is Command.CNXN


def test_a_stream_has_its_data_one_packet_at_a_time() -> None:
    connection = online()
    stream = opened(connection)
    assert connection.write(stream, b"one") == 3
    assert answers(connection) == [Packet(Command.WRTE, stream, 7, b"one")]
    assert not connection.may_write(stream)
    with pytest.raises(ValueError, match="waits for an acknowledgement"):
        connection.write(stream, b"two")
    assert send(connection, Packet(Command.OKAY, 7, stream)) == [Acknowledged(stream)]
    assert connection.may_write(stream)
    assert send(connection, Packet(Command.WRTE, 7, stream, b"in")) == [Received(stream, b"in")]
    with pytest.raises(ProtocolError, match="before the last one was acknowledged"):
        send(connection, Packet(Command.WRTE, 7, stream, b"more"))


def test_data_may_follow_once_it_is_acknowledged() -> None:
    connection = online()
    stream = opened(connection)
    for data in (b"one", b"two"):
        assert send(connection, Packet(Command.WRTE, 7, stream, data)) == [Received(stream, data)]
        connection.acknowledge(stream)
        assert answers(connection) == [Packet(Command.OKAY, stream, 7)]


def test_both_sides_may_close() -> None:
    connection = online()
    stream, other = opened(connection, 7), opened(connection, 8)
    connection.close(stream)
    assert answers(connection) == [Packet(Command.CLSE, stream, 7)]
    assert send(connection, Packet(Command.CLSE, 7, stream), Packet(Command.WRTE, 7, stream, b"late")) == []
    assert send(connection, Packet(Command.CLSE, 8, other)) == [Closed(other)]
    connection.close(other)
    connection.acknowledge(other)
    assert answers(connection) == []


def test_a_stream_belongs_to_the_host_that_opened_it() -> None:
    connection = online()
    stream = opened(connection, 7)
    assert send(connection, Packet(Command.CLSE, 99, stream), Packet(Command.WRTE, 99, stream, b"x")) == []


def test_refusal_and_too_many_streams() -> None:
    connection = online()
    (event,) = send(connection, Packet(Command.OPEN, 5, 0, b"nothing:\0"))
    assert isinstance(event, Opened)
    connection.refuse(event.stream)
    assert answers(connection) == [Packet(Command.CLSE, 0, 5)]
    for number in range(1, MAX_STREAMS + 1):
        opened(connection, number)
    assert send(connection, Packet(Command.OPEN, 500, 0, b"shell:\0")) == []
    assert answers(connection) == [Packet(Command.CLSE, 0, 500)]


def test_the_hosts_limit_of_a_payload_is_kept() -> None:
    connection = Connection(b"device::", trust=Trust.OPEN)
    send(connection, Packet(Command.CNXN, VERSION, 5000, b"host::"))
    answers(connection)
    stream = opened(connection)
    assert connection.write(stream, b"x" * 9000) == 5000


def test_checksums_are_true_for_a_host_that_wants_them() -> None:
    connection = Connection(b"device::", trust=Trust.OPEN)
    send(connection, Packet(Command.CNXN, VERSION_WITH_CHECKSUM, 1 << 18, b"host::"))
    connection.take_output()
    (event,) = send(connection, Packet(Command.OPEN, 7, 0, b"shell:\0"))
    assert isinstance(event, Opened)
    connection.accept(event.stream)
    connection.write(event.stream, b"abc")
    reader = PacketReader()  # which checks
    reader.feed(connection.take_output())
    assert reader.next_packet() is not None and reader.next_packet() is not None
    damaged = bytearray(Packet(Command.WRTE, 7, event.stream, b"abc").encode())
    damaged[-1] ^= 1
    with pytest.raises(ProtocolError, match="checksum"):
        connection.receive(bytes(damaged))


@given(data=st.binary(max_size=400), trust=st.sampled_from(Trust))
def test_any_bytes_end_in_a_protocol_error_or_in_waiting(data: bytes, trust: Trust) -> None:
    connection = Connection(b"device::", trust=trust)
    try:
        connection.receive(data)
    except ProtocolError:
        return
    assert connection.pending_bytes < 10_000


STEPS = st.lists(
    st.tuples(st.sampled_from(Command), st.integers(0, 3), st.integers(0, 3), st.binary(max_size=8)), max_size=40
)


@given(steps=STEPS)
def test_any_sequence_of_packets_leaves_whole_streams(steps: list[tuple[Command, int, int, bytes]]) -> None:
    """Every stream that was opened is closed at most once, and nothing is said to one that is gone."""
    connection = online()
    alive: set[int] = set()
    for command, arg0, arg1, payload in steps:
        arg0 = VERSION if command is Command.CNXN else arg0
        try:
            events = send(connection, Packet(command, arg0, arg1, payload))
        except ProtocolError:
            return
        for event in events:
            if isinstance(event, Opened):
                assert event.stream not in alive
                alive.add(event.stream)
                connection.accept(event.stream)
                connection.write(event.stream, b"x")
            elif isinstance(event, Closed):
                alive.remove(event.stream)
            elif isinstance(event, Received | Acknowledged):
                assert event.stream in alive
