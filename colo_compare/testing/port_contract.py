"""What any frame port must pass, a third party's too.

::

    @asynccontextmanager
    async def make_pair() -> AsyncIterator[tuple[FramePort, FramePort]]:
        async with MyPort(...) as one, MyPort(...) as other:
            yield one, other  # what one sends, the other receives

    async def test_my_port() -> None:
        await check_port(make_pair)

The checks send frames of an EtherType for local experiments (0x88B5) and a few of TCP. A pair must carry
nothing else meanwhile, lose none of a few hundred frames that nobody reads at once, and keep their order.
"""

import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any, Final

import trio
from trio.testing import wait_all_tasks_blocked

from colo_compare.errors import PortClosed, PortError
from colo_compare.ports.port import FramePort, PortCounters
from colo_compare.wire.checksum import TCP_PROTOCOL, internet_checksum, pseudo_header_sum
from colo_compare.wire.frame import ACK, PSH, TCP, VNET_HEADER_LEN, Frame, parse_frame
from colo_compare.wire.offload import materialise
from colo_compare.wire.vnet import GSO_NONE, GSO_TCPV4, NEEDS_CSUM, VnetHeader

MakePair = Callable[[], AbstractAsyncContextManager[tuple[FramePort, FramePort]]]
Check = Callable[[FramePort, FramePort, int], Coroutine[Any, Any, None]]

_ADDRESSES: Final = bytes.fromhex("025000000002025000000001")
_EXPERIMENT: Final = bytes.fromhex("88b5")
_FIRST_SEQ: Final = 1000
_MAX_UNREAD: Final = 256 << 20  # bytes after which a port that says that it pushes back should have


async def check_port(make_pair: MakePair, *, longest: int = 1514, patience: float = 10.0) -> None:
    """Check a port against ports.port.FramePort.

    `make_pair` gives two ports, opened and connected: what one sends, the other receives. `longest`: bytes of
    the longest Ethernet frame that passes between them. `patience` is in seconds: how long one check may
    take. Raises AssertionError that says what the contract asks for.
    """
    for check in _CHECKS:
        for swapped in (False, True):
            name = check.__name__[1:].replace("_", " ")
            with trio.move_on_after(patience) as scope:
                try:
                    async with make_pair() as (one, other):
                        if swapped:
                            one, other = other, one
                        await check(one, other, longest)
                except (ExceptionGroup, PortError) as error:
                    raise _only_one(error, name) from error
            _expect(not scope.cancelled_caught, f'the check "{name}" is not done after {patience:g} s')


def _only_one(error: Exception, name: str) -> Exception:
    """Give the first exception of a group, a port's as the mistake that it is here."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, PortError):
        return AssertionError(f'in the check "{name}" the port raised {error!r}')
    return error


def _expect(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(what)


# Frames


def _experiment(size: int, number: int) -> Frame:
    """Give a frame of `size` bytes, 14 at least, that carries its number as far as there is room."""
    body = struct.pack(">I", number) * ((size - 14) // 4 + 1)
    return parse_frame((_ADDRESSES + _EXPERIMENT + body)[:size], 0, False)


def _numbered(count: int, size: int = 64) -> list[Frame]:
    return [_experiment(size, number) for number in range(count)]


def _tcp(payload: bytes, gso_size: int) -> Frame:
    """Give a TCP frame as a guest with offloads sends it: partial checksum; large unless gso_size is 0."""
    length = 40 + len(payload)
    addresses = bytes((10, 0, 0, 1, 10, 0, 0, 2))
    ip = struct.pack(">BBHHHBBH", 0x45, 0, length, 7, 0x4000, 64, TCP_PROTOCOL, 0) + addresses
    ip = ip[:10] + internet_checksum(ip, 0, 20).to_bytes(2, "big") + addresses
    pseudo = pseudo_header_sum(ip, 4, 0, TCP_PROTOCOL, length - 20)
    partial = 0xFFFF - internet_checksum(b"", 0, 0, pseudo)
    tcp = struct.pack(">HHIIBBHHH", 40000, 80, _FIRST_SEQ, 1, 0x50, ACK | PSH, 1024, partial, 0)
    header = VnetHeader(
        flags=NEEDS_CSUM,
        gso_type=GSO_TCPV4 if gso_size else GSO_NONE,
        hdr_len=54 if gso_size else 0,
        gso_size=gso_size,
        csum_start=34,
        csum_offset=16,
    )
    data = header.pack() + _ADDRESSES + b"\x08\x00" + ip + tcp + payload
    return parse_frame(data, VNET_HEADER_LEN, False)


# What the checks do with ports


async def _send_all(port: FramePort, frames: list[Frame]) -> None:
    done = port.send_batch(frames)
    while done < len(frames):
        await port.wait_writable()
        before = done
        done = port.send_batch(frames, before)
        _expect(before <= done <= len(frames), f"send_batch gave {done} for a start of {before}")


async def _receive(port: FramePort, count: int) -> list[bytes]:
    """Receive at least so many frames; gives them without their virtio-net headers."""
    got: list[bytes] = []
    while len(got) < count:
        batch = await port.receive_batch()
        _expect(0 < len(batch) < 4000, f"receive_batch gave {len(batch)} frames, not one to a few thousand")
        _expect(all(type(data) is bytes for data in batch), "receive_batch gave frames that are not bytes")
        got += [data[port.header_len :] for data in batch]
    return got


async def _expect_frames(port: FramePort, frames: list[Frame]) -> None:
    """Receive exactly these frames, in this order."""
    got = await _receive(port, len(frames))
    want = [frame.data[frame.header_len :] for frame in frames]
    for index, (came, went) in enumerate(zip(got, want, strict=False)):
        if came != went:
            place = want.index(came) if came in want else "none"
            raise AssertionError(
                f"frame {index} of {len(want)} came as {len(came)} bytes, frame {place} of those"
            )
    _expect(len(got) == len(want), f"{len(got)} frames came of {len(want)}")


@asynccontextmanager
async def _expect_closed(what: str) -> AsyncIterator[None]:
    try:
        yield
    except PortClosed:
        return
    raise AssertionError(f"{what} on a closed port did not raise PortClosed")


# The checks. `one` sends to `other`.


async def _states_what_it_is(one: FramePort, other: FramePort, longest: int) -> None:
    for port in (one, other):
        _expect(port.url != "", "url is not set")
        _expect(port.header_len in (0, VNET_HEADER_LEN), f"header_len is {port.header_len}, not 0 or 12")
        _expect(isinstance(port.pushes_back, bool), "pushes_back is not set")
        _expect(isinstance(port.counters, PortCounters), "counters are not PortCounters")


async def _passes_frames_of_all_sizes(one: FramePort, other: FramePort, longest: int) -> None:
    sizes = [14, 15, 59, 60, 61, 64, 1000, 1513, 1514, 1515, 4096, 9014, 16384, 32768, longest - 1, longest]
    frames = [_experiment(size, size) for size in sizes if size <= longest]
    for frame in frames:
        await _send_all(one, [frame])
        await _expect_frames(other, [frame])
    _expect(one.connected and other.connected, "connected is not set although frames pass")


async def _keeps_order(one: FramePort, other: FramePort, longest: int) -> None:
    frames = _numbered(600)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_send_all, one, frames)
        await _expect_frames(other, frames)


async def _starts_where_told(one: FramePort, other: FramePort, longest: int) -> None:
    frames = _numbered(8)
    _expect(one.send_batch([]) == 0, "send_batch of no frames did not give 0")
    _expect(one.send_batch(frames, 8) == 8, "send_batch from behind the last frame did not give that index")
    _expect(one.send_batch(frames, 3) == 8, "send_batch did not give the index behind the last frame")
    await _expect_frames(other, frames[3:])


async def _drains(one: FramePort, other: FramePort, longest: int) -> None:
    _expect(other.drain() == [], "drain gave something although nothing was sent")
    frames = _numbered(100)
    sending = one.send_batch(frames)
    got: list[bytes] = []
    while len(got) < len(frames):
        got += other.drain()
        if sending < len(frames):
            sending = one.send_batch(frames, sending)
        await trio.lowlevel.checkpoint()
    _expect(
        [data[other.header_len :] for data in got] == [frame.data for frame in frames],
        "drain did not give the frames that were sent, in order",
    )
    _expect(other.drain() == [], "drain gave frames twice")


async def _waits_for_frames(one: FramePort, other: FramePort, longest: int) -> None:
    frames = _numbered(1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_expect_frames, other, frames)
        await wait_all_tasks_blocked()  # a receiver that polls never blocks
        await _send_all(one, frames)


async def _pushes_back(one: FramePort, other: FramePort, longest: int) -> None:
    if not other.pushes_back:
        return
    frames = _numbered(64, min(longest, 1514))
    sent: list[Frame] = []
    size = 0
    taken = len(frames)
    while taken == len(frames):
        taken = one.send_batch(frames)
        sent += frames[:taken]
        size += taken * len(frames[0].data)
        _expect(size < _MAX_UNREAD, f"pushes_back is set, but {size} bytes were taken that nobody read")
    writable = trio.Event()

    async def wait() -> None:
        await one.wait_writable()
        writable.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        _expect(not writable.is_set(), "wait_writable returned although the port was full")
        rest = frames[taken:]
        nursery.start_soon(_expect_frames, other, sent + rest)
        await writable.wait()
        await _send_all(one, rest)


async def _wakes_who_waits_when_closed(one: FramePort, other: FramePort, longest: int) -> None:
    async def wait() -> None:
        async with _expect_closed("a waiting receive_batch"):
            await one.receive_batch()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        await one.aclose()


async def _refuses_everything_once_closed(one: FramePort, other: FramePort, longest: int) -> None:
    await one.aclose()
    await one.aclose()
    _expect(not one.connected, "a closed port is connected")
    async with _expect_closed("receive_batch"):
        await one.receive_batch()
    async with _expect_closed("drain"):
        one.drain()
    async with _expect_closed("send_batch"):
        one.send_batch(_numbered(1))
    async with _expect_closed("wait_writable"):
        await one.wait_writable()


async def _counts(one: FramePort, other: FramePort, longest: int) -> None:
    before = (replace(one.counters), replace(other.counters))
    frames = [_experiment(size, size) for size in (14, 60, 100, 1514)]
    await _send_all(one, frames)
    await _expect_frames(other, frames)
    total = sum(len(frame.data) for frame in frames)
    sent, received = one.counters, other.counters
    _expect(sent.sent_frames - before[0].sent_frames == 4, "sent_frames does not count frames")
    _expect(
        sent.sent_bytes - before[0].sent_bytes == total, "sent_bytes does not count bytes of Ethernet frames"
    )
    _expect(
        received.received_frames - before[1].received_frames == 4, "received_frames does not count frames"
    )
    _expect(
        received.received_bytes - before[1].received_bytes == total,
        "received_bytes does not count bytes of Ethernet frames",
    )
    _expect(sent.dropped_send == before[0].dropped_send, "dropped_send grew although nothing was dropped")


async def _converts_headers(one: FramePort, other: FramePort, longest: int) -> None:
    """Pass what a guest left to be done to a port that can leave it to others, and to one that cannot."""
    payload = bytes(range(256)) * 16
    for size, gso_size in ((1000, 0), (4000, 1000), (4096, 536)):
        await _send_all(one, [_tcp(payload[:size], gso_size)])
        stream = b""
        while len(stream) < size:
            for data in await other.receive_batch():
                stream += _tcp_payload(data, other.header_len, _FIRST_SEQ + len(stream))
        _expect(stream == payload[:size], "a TCP frame with a virtio-net header came with another payload")


def _tcp_payload(data: bytes, header_len: int, seq: int) -> bytes:
    """Give the payload of what may still be one large frame, its checksums and sequence numbers checked."""
    stream = b""
    for bare in materialise(parse_frame(data, header_len, False)):
        frame = parse_frame(bare, 0, False)
        _expect(frame.kind == TCP, "a TCP frame with a virtio-net header came as something else")
        _expect(frame.seq == seq + len(stream), "segments of a large TCP frame came out of order")
        pseudo = pseudo_header_sum(bare, 4, frame.l3, TCP_PROTOCOL, frame.end - frame.l4)
        _expect(
            internet_checksum(bare, frame.l4, frame.end, pseudo) == 0,
            "a TCP frame with a partial checksum came with a wrong one",
        )
        stream += bare[frame.payload : frame.end]
    return stream


async def _survives_absurd_frames(one: FramePort, other: FramePort, longest: int) -> None:
    """Drop what cannot be sent, or pass it on as it is, and go on."""
    absurd = [
        parse_frame(b"", 0, False),
        parse_frame(b"\x02\x50\x00", 0, False),
        parse_frame(bytes(VNET_HEADER_LEN), VNET_HEADER_LEN, False),
        parse_frame(b"\xff" * VNET_HEADER_LEN + _experiment(60, 1).data, VNET_HEADER_LEN, False),
    ]
    last = _experiment(60, 2)
    await _send_all(one, [*absurd, last])
    got: list[bytes] = []
    while last.data not in got:
        got += await _receive(other, 1)


async def _loses_nothing_when_cancelled(one: FramePort, other: FramePort, longest: int) -> None:
    frames = _numbered(60)
    got: list[bytes] = []
    for index, frame in enumerate(frames):
        await _send_all(one, [frame])
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_after, scope, index % 6)
                got += await other.receive_batch()
                nursery.cancel_scope.cancel()
    while len(got) < len(frames):
        got += await other.receive_batch()
    _expect(
        [data[other.header_len :] for data in got] == [frame.data for frame in frames],
        "frames were lost, or came twice, when receive_batch was cancelled",
    )


async def _cancel_after(scope: trio.CancelScope, checkpoints: int) -> None:
    for _ in range(checkpoints):
        await trio.lowlevel.checkpoint()
    scope.cancel()


_CHECKS: Final[tuple[Check, ...]] = (
    _states_what_it_is,
    _passes_frames_of_all_sizes,
    _starts_where_told,
    _keeps_order,
    _drains,
    _waits_for_frames,
    _pushes_back,
    _wakes_who_waits_when_closed,
    _refuses_everything_once_closed,
    _counts,
    _converts_headers,
    _survives_absurd_frames,
    _loses_nothing_when_cancelled,
)
