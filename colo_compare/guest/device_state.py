"""What of a running guest is not in its memory: its clock, and frames that its port has not taken yet."""

import struct
from dataclasses import dataclass
from typing import Final

_HEAD: Final = struct.Struct(">4sBxxxdI")  # magic, version, clock, number of frames
_LENGTH: Final = struct.Struct(">I")
_MAGIC: Final = b"EMBG"
_VERSION: Final = 1


@dataclass(frozen=True)
class DeviceState:
    """The device state of a guest that stands still."""

    clock: float  # seconds of the guest's clock
    frames: tuple[bytes, ...]  # to be sent first of all, in order

    def encode(self) -> bytes:
        """Give it as bytes."""
        parts = [_HEAD.pack(_MAGIC, _VERSION, self.clock, len(self.frames))]
        for frame in self.frames:
            parts += (_LENGTH.pack(len(frame)), frame)
        return b"".join(parts)


def decode(data: bytes) -> DeviceState:
    """Read a device state. Raises ValueError."""
    if len(data) < _HEAD.size:
        raise ValueError(f"a device state of {len(data)} bytes is none of an embedded guest")
    magic, version, clock, count = _HEAD.unpack_from(data)
    if magic != _MAGIC or version != _VERSION:
        raise ValueError(f"the device state is of another guest, or version {version} instead of {_VERSION}")
    frames: list[bytes] = []
    at = _HEAD.size
    for _ in range(count):
        if at + _LENGTH.size > len(data):
            raise ValueError("the device state ends before its frames")
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        frames.append(data[at : at + length])
        at += length
    if at != len(data):
        raise ValueError("the device state does not end where its frames do")
    return DeviceState(clock, tuple(frames))
