import io
import struct
from contextlib import suppress
from pathlib import Path

import dpkt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.l2 import Ether
from scapy.utils import RawPcapNgReader, RawPcapReader, wrpcap, wrpcapng

from colo_compare.errors import CaptureError
from colo_compare.ports.pcap import (
    INBOUND,
    OUTBOUND,
    CapturedFrame,
    CaptureEncoder,
    CaptureWriter,
    read_capture,
)

AT = 1_700_000_000_123_456_789
FRAMES = [
    bytes(range(size % 251)) + bytes(max(0, size - size % 251)) for size in (14, 60, 61, 62, 63, 1514, 65549)
]


def write(path: Path, frames: list[bytes] = FRAMES, comment: str = "") -> None:
    with CaptureWriter(path, ["primary", "secondary"]) as writer:
        for index, data in enumerate(frames):
            writer.write(("primary", "secondary")[index % 2], AT + index, data, comment)


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    size = len(body) + 12
    return struct.pack(order + "II", kind, size) + body + struct.pack(order + "I", size)


def section(order: str = "<", version: int = 1) -> bytes:
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, version, 0, -1), order)


def interface(options: bytes = b"", link_type: int = 1, snap: int = 0, order: str = "<") -> bytes:
    return block(1, struct.pack(order + "HHI", link_type, 0, snap) + options, order)


def packet(
    data: bytes, number: int = 0, ticks: int = 0, order: str = "<", claimed: int | None = None
) -> bytes:
    size = len(data) if claimed is None else claimed
    head = struct.pack(order + "IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, size, size)
    return block(6, head + data + bytes(-len(data) % 4), order)


def test_pcapng_comes_back_as_it_went(tmp_path: Path) -> None:
    path = tmp_path / "capture.pcapng"
    write(path, comment="held for 3 ms: ü")
    with read_capture(path) as capture:
        frames = list(capture)
        assert capture.note == ""
        assert capture.packets == len(FRAMES)
    assert frames == [
        CapturedFrame(("primary", "secondary")[i % 2], AT + i, data, len(data), "held for 3 ms: ü")
        for i, data in enumerate(FRAMES)
    ]


def test_pcap_comes_back_without_names_and_comments(tmp_path: Path) -> None:
    path = tmp_path / "capture.pcap"
    write(path, comment="lost")
    assert list(read_capture(path)) == [
        CapturedFrame("", AT + i, data, len(data), "") for i, data in enumerate(FRAMES)
    ]


def test_others_read_what_is_written(tmp_path: Path) -> None:
    write(tmp_path / "a.pcapng", comment="a comment")
    with (tmp_path / "a.pcapng").open("rb") as file:
        assert [data for _, data in dpkt.pcapng.Reader(file)] == FRAMES
    with RawPcapNgReader(str(tmp_path / "a.pcapng")) as reader:
        for data, (read, meta) in zip(FRAMES, reader, strict=True):
            assert read == data[:0xFFFF]  # scapy reads no more
            assert meta.comments == [b"a comment"]
            assert meta.tsresol == 10**9
    write(tmp_path / "a.pcap")
    with (tmp_path / "a.pcap").open("rb") as file:
        assert [data for _, data in dpkt.pcap.Reader(file)] == FRAMES
    with RawPcapReader(str(tmp_path / "a.pcap")) as old_reader:
        for index, (read, meta) in enumerate(old_reader):
            assert read == FRAMES[index][:0xFFFF]
            assert meta.sec * 10**9 + meta.usec == AT + index


def test_what_others_write_is_read(tmp_path: Path) -> None:
    packets = [Ether(data) for data in FRAMES]
    wrpcap(str(tmp_path / "a.pcap"), packets)
    wrpcap(str(tmp_path / "b.pcap"), packets, endianness=">", nano=True)
    wrpcapng(str(tmp_path / "c.pcapng"), packets)
    for name in ("a.pcap", "b.pcap", "c.pcapng"):
        assert [frame.data for frame in read_capture(tmp_path / name)] == FRAMES
    file = io.BytesIO()
    dpkt.pcap.Writer(file).writepkt(FRAMES[0], ts=1.5)
    (tmp_path / "d.pcap").write_bytes(file.getvalue())
    assert [(frame.at, frame.data) for frame in read_capture(tmp_path / "d.pcap")] == [
        (1_500_000_000, FRAMES[0])
    ]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("options", "ticks", "at"),
    [
        ((), 5, 5000),
        ((9, b"\x09"), 5, 5),
        ((9, b"\x03"), 5, 5_000_000),
        ((9, b"\x8a"), 1536, 1_500_000_000),
        ((9, b"\x00"), 5, 5_000_000_000),
    ],
)
def test_time_resolutions(
    tmp_path: Path, order: str, options: tuple[int, bytes], ticks: int, at: int
) -> None:
    described = b""
    if options:
        described = struct.pack(order + "HH", options[0], 1) + options[1] + bytes(3)
    data = section(order) + interface(described, order=order) + packet(b"x" * 14, 0, ticks, order)
    path = tmp_path / "a"
    path.write_bytes(data)
    assert [(frame.interface, frame.at) for frame in read_capture(path)] == [("0", at)]


def test_time_offsets_and_names(tmp_path: Path) -> None:
    options = struct.pack("<HHq", 14, 8, 100) + struct.pack("<HH4s", 2, 4, b"eth0") + struct.pack("<HH", 0, 0)
    path = tmp_path / "a"
    path.write_bytes(section() + interface(options) + packet(b"x" * 14, 0, 1_000_000))
    assert [(frame.interface, frame.at) for frame in read_capture(path)] == [("eth0", 101_000_000_000)]


def test_other_blocks_are_skipped_and_sections_start_anew(tmp_path: Path) -> None:
    data = section() + interface() + block(0x0BAD, b"whatever") + packet(b"a" * 14)
    data += section(">") + interface(order=">") + packet(b"b" * 15, order=">")
    path = tmp_path / "a"
    path.write_bytes(data)
    assert [frame.data for frame in read_capture(path)] == [b"a" * 14, b"b" * 15]


def test_simple_packets(tmp_path: Path) -> None:
    data = section() + interface(snap=20)
    data += block(3, struct.pack("<I", 14) + b"a" * 14 + bytes(2)) + block(
        3, struct.pack("<I", 99) + b"b" * 20
    )
    path = tmp_path / "a"
    path.write_bytes(data)
    assert [(frame.data, frame.length, frame.at) for frame in read_capture(path)] == [
        (b"a" * 14, 14, 0),
        (b"b" * 20, 99, 0),
    ]


@pytest.mark.parametrize("name", ["a.pcap", "a.pcapng"])
def test_a_file_that_ends_in_mid_packet(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write(path, FRAMES[:3])
    whole = path.read_bytes()
    write(path, FRAMES[:2])
    two = len(path.read_bytes())
    for size in range(two + 1, len(whole)):
        path.write_bytes(whole[:size])
        capture = read_capture(path)
        assert [frame.data for frame in capture] == FRAMES[:2]
        assert capture.note == f"{path}: ends in the middle of packet 3, which is left out"


HEADER = CaptureEncoder(Path("a.pcap"), []).header()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "is neither a pcap nor a pcapng file"),
        (b"GIF89a", "is neither a pcap nor a pcapng file"),
        (HEADER[:20], "ends within the file header"),
        (HEADER[:20] + struct.pack("<I", 113), r"link type 113 is not Ethernet \(1\)"),
        (HEADER + struct.pack("<IIII", 0, 0, 0x40001, 0x40001), "packet 1: claims 262145 bytes, more than"),
        (section()[:8] + b"\0" * 20, "packet 1: a section header has no byte order"),
        (section(version=2), "packet 1: pcapng version 2 is not known"),
        (section() + struct.pack("<II", 6, 14), "packet 1: a block claims 14 bytes"),
        (section() + struct.pack("<II", 6, 8), "packet 1: a block claims 8 bytes"),
        (section() + struct.pack("<II", 6, 1 << 25), "packet 1: a block claims 33554432 bytes"),
        (
            section() + packet(b"a" * 14)[:-4] + b"\0\0\0\0",
            "packet 1: a block does not end with its own length",
        ),
        (section() + packet(b"a" * 14), "packet 1: is of interface 0, which is not described"),
        (
            section() + interface(link_type=113) + packet(b"a" * 14),
            "interface 0, whose link type 113 is not Ether",
        ),
        (
            section() + interface() + packet(b"a" * 14, claimed=15 + 2),
            "packet 1: claims 17 bytes, more than its",
        ),
        (section() + interface() + block(6, b"\0" * 16), "packet 1: a block is too short"),
        (section() + interface() + packet(b"a" * 14) + block(6, b""), "packet 2: a block is too short"),
        (section() + interface(struct.pack("<HHI", 14, 4, 0)), "packet 1: a block is too short"),
        (section() + interface(struct.pack("<HH", 9, 0)), "packet 1: a block is too short"),
    ],
)
def test_broken_files_say_where(tmp_path: Path, data: bytes, problem: str) -> None:
    path = tmp_path / "broken"
    path.write_bytes(data)
    with pytest.raises(CaptureError, match=problem):
        list(read_capture(path))


@given(
    st.binary(max_size=200), st.sampled_from((b"", HEADER, section(), section() + interface(), section(">")))
)
def test_garbage_never_raises_anything_else(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, start: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "garbage"
    path.write_bytes(start + data)
    with suppress(CaptureError), read_capture(path) as capture:
        for frame in capture:
            assert len(frame.data) <= len(data)


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="none: cannot be read: No such file"):
        read_capture(tmp_path / "none")
    with pytest.raises(CaptureError, match="a: cannot be written: No such file"):
        CaptureWriter(tmp_path / "none" / "a", ["x"])


def test_a_full_disk() -> None:
    writer = CaptureWriter("/dev/full", ["x"])
    with pytest.raises(CaptureError, match="/dev/full: cannot be written: No space left on device"):
        writer.close()
    writer = CaptureWriter("/dev/full", ["x"])
    with pytest.raises(CaptureError, match="No space left on device"):
        writer.write("x", 0, bytes(60000))
    with pytest.raises(CaptureError):
        writer.close()


def test_an_interface_that_was_not_named(tmp_path: Path) -> None:
    with CaptureWriter(tmp_path / "a", ["x"]) as writer, pytest.raises(KeyError):
        writer.write("y", 0, b"")


def test_a_direction_and_a_comment_on_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    encoder = CaptureEncoder(path, ["client"])
    header = encoder.header("of what")
    assert b"\x01\x00\x07\x00of what\x00" in header  # opt_comment, padded to 32 bits
    frames = [
        encoder.frame("client", 5, b"in", "seen", INBOUND),
        encoder.frame("client", 6, b"out", direction=OUTBOUND),
    ]
    assert b"\x02\x00\x04\x00\x01\x00\x00\x00" in frames[0]  # epb_flags
    assert b"\x02\x00\x04\x00\x02\x00\x00\x00" in frames[1]
    path.write_bytes(header + b"".join(frames))
    with read_capture(path) as capture:
        assert [(frame.data, frame.comment) for frame in capture] == [(b"in", "seen"), (b"out", "")]
