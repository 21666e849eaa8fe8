"""The bytes of GET /bytes/N, from any offset on: those of `demo.content`, a piece at a time."""

from typing import Final

from colo_compare.demo.content import BLOCK, blocks

_NUMBER_LEN: Final = 8
_BODY: Final = next(blocks(BLOCK))[_NUMBER_LEN:]


def piece(offset: int, count: int) -> bytes:
    """Give up to `count` bytes of the stream from `offset` on: as many as its block still has."""
    number, at = divmod(offset, BLOCK)
    if at < _NUMBER_LEN:
        return (
            number.to_bytes(_NUMBER_LEN, "big")[at : at + count] + _BODY[: max(0, count + at - _NUMBER_LEN)]
        )
    return _BODY[at - _NUMBER_LEN : at - _NUMBER_LEN + count]
