"""Durations and sizes as people write them: ``"20ms"``, ``"2h"``, ``"64MiB"``, ``"off"``.

The types are numbers (seconds, bytes) that know their text, so the core takes them as they are. `decode` and
`encode` are the hooks that msgspec needs; a checkpointer's `Options` may use the types as well.

A number without a unit is refused: nobody should have to guess whether ``compare_timeout = 3`` means seconds.
"""

import math
import re
from decimal import Decimal
from typing import Final, Self

_SECONDS: Final = {
    "us": Decimal("0.000001"),
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
}
_UNITS_DOWN: Final = tuple(reversed(_SECONDS.items()))
_BYTES: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}

# 9 + 6 digits: the most that a double gives back exactly, so what is printed reads back to the same number.
_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(us|ms|s|m|h|d)")
_TOO_LARGE: Final = Decimal(10**9)
_SIZE: Final = re.compile(r"([0-9]{1,15})(B|KiB|MiB|GiB|TiB)")


class Duration(float):
    """A time span in seconds, written as a number and one of us, ms, s, m, h, d."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a duration. Raises ValueError with a message for people."""
        match = _DURATION.fullmatch(text)
        if match is None:
            raise ValueError(
                f'"{text}" is no duration: write a number and a unit (us, ms, s, m, h, d), like "20ms"'
            )
        return cls(Decimal(match[1]) * _SECONDS[match[2]])

    def __str__(self) -> str:
        """Give a text that parses to this very number, one without a fraction where there is such a text.

        A number that no text gives (Duration(1 / 3)) is rounded to microseconds.
        """
        exact = Decimal(float.__repr__(self))
        for places in (0, 6):
            for unit, seconds in _UNITS_DOWN:
                number = (exact / seconds).quantize(Decimal(10) ** -places)
                if float(number * seconds) == self and (number or unit == "s") and number < _TOO_LARGE:
                    text = f"{number:f}"
                    return f"{text.rstrip('0').rstrip('.') if places else text}{unit}"
        return f"{float(self):.6f}s"


class Period(Duration):
    """A duration that may also be "off": `math.inf` seconds."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a duration or "off". Raises ValueError with a message for people."""
        if text == "off":
            return cls(math.inf)
        try:
            return super().parse(text)
        except ValueError as error:
            raise ValueError(f'{error}, or "off"') from None

    def __str__(self) -> str:
        """Give the text that parses to this very number."""
        return "off" if math.isinf(self) else super().__str__()


class Size(int):
    """A number of bytes, written as a whole number and one of B, KiB, MiB, GiB, TiB."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a size. Raises ValueError with a message for people."""
        match = _SIZE.fullmatch(text)
        if match is None:
            raise ValueError(
                f'"{text}" is no size: write a whole number and a unit (B, KiB, MiB, GiB, TiB), like "64MiB"'
            )
        return cls(int(match[1]) * _BYTES[match[2]])

    def __str__(self) -> str:
        """Give the text that parses to this very number, in the largest unit without a fraction."""
        for unit in ("TiB", "GiB", "MiB", "KiB"):
            if self and self % _BYTES[unit] == 0:
                return f"{self // _BYTES[unit]}{unit}"
        return f"{int(self)}B"


# What a text must look like, for the JSON schema.
PATTERNS: Final[dict[object, str]] = {
    Duration: f"^{_DURATION.pattern}$",
    Period: f"^(off|{_DURATION.pattern})$",
    Size: f"^{_SIZE.pattern}$",
}


def decode(kind: type, value: object) -> object:
    """Make a quantity from its text (msgspec's `dec_hook`). Raises ValueError with a message for people."""
    if not issubclass(kind, (Duration, Size)):
        raise NotImplementedError(f"the configuration has no text form for {kind.__name__}")
    if not isinstance(value, str):
        example = '"64MiB"' if issubclass(kind, Size) else '"20ms"'
        raise ValueError(f"{value!r} has no unit: write it as text with one, like {example}")  # noqa: TRY004 - msgspec adds the path to it
    return kind.parse(value)


def encode(value: object) -> str:
    """Give a quantity's text (msgspec's `enc_hook`)."""
    if not isinstance(value, (Duration, Size)):
        raise NotImplementedError(f"the configuration has no text form for {type(value).__name__}")
    return str(value)
