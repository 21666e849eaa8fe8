"""Records in flat memory, and fields that read and write them.

A record object holds no state: a view of the memory and a place in it, made anew whenever one is needed.

(A `struct.Struct` for each record would unpack and pack forty fields to change two. One ctypes.Structure view
for each record reads at the same speed, but keeps the memory exported, and knows no derived fields.)
"""

from typing import Final

WORD_MASK: Final = (1 << 63) - 1


class Memory:
    """One flat memory, as bytes and as signed 8-byte words. `raw` has format "B" and is writable."""

    __slots__ = ("raw", "words")

    def __init__(self, raw: memoryview) -> None:
        self.raw = raw
        self.words = raw.cast("q")


class Record:
    """A view of one record."""

    __slots__ = ("at", "raw", "words")

    def __init__(self, memory: Memory, offset: int) -> None:
        self.raw = memory.raw
        self.words = memory.words
        self.at = offset >> 3  # in words


class Word:
    """A field of one word, by its index in the record."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index

    def __get__(self, record: Record, owner: object) -> int:
        return record.words[record.at + self.index]

    def __set__(self, record: Record, value: int) -> None:
        record.words[record.at + self.index] = value


class Raw:
    """A field of `size` bytes from the word `index` on."""

    __slots__ = ("index", "size")

    def __init__(self, index: int, size: int) -> None:
        self.index = index
        self.size = size

    def __get__(self, record: Record, owner: object) -> bytes:
        start = (record.at + self.index) << 3
        return bytes(record.raw[start : start + self.size])

    def __set__(self, record: Record, value: bytes) -> None:
        start = (record.at + self.index) << 3
        record.raw[start : start + self.size] = value
