import math
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colo_compare.quantities import PATTERNS, Duration, Period, Size, decode, encode


class Table(msgspec.Struct):
    pause: Duration
    period: Period
    room: Size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("20ms", 0.02),
        ("3s", 3.0),
        ("2h", 7200.0),
        ("1.5m", 90.0),
        ("1d", 86400.0),
        ("250us", 0.00025),
        ("0ms", 0.0),
        ("0.1s", 0.1),
    ],
)
def test_a_duration_is_a_number_of_seconds(text: str, seconds: float) -> None:
    assert Duration.parse(text) == seconds
    assert Period.parse(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "3", "s", "-3s", "3 s", "3S", "1h30m", "3min", "1e3s", ".5s", "5.s", "inf", "٣s"]
)
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f'"{text}" is no duration: write a number and a unit')):
        Duration.parse(text)


def test_off_is_for_periods_only() -> None:
    assert Period.parse("off") == math.inf
    assert str(Period(math.inf)) == "off"
    with pytest.raises(ValueError, match='"off" is no duration'):
        Duration.parse("off")
    with pytest.raises(ValueError, match=r'or "off"$'):
        Period.parse("never")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"),
        (0.02, "20ms"),
        (90.0, "90s"),
        (120.0, "2m"),
        (7200.0, "2h"),
        (86400.0, "1d"),
        (0.0000005, "0.0005ms"),
        (1.5, "1500ms"),
        (1 / 3, "0.333333s"),
    ],
)
def test_a_duration_prints_without_a_fraction_where_it_can(seconds: float, text: str) -> None:
    assert str(Duration(seconds)) == text


@given(
    st.decimals(0, 999_999_999, places=6).map(lambda number: f"{number:f}"),
    st.sampled_from(["us", "ms", "s", "m", "h", "d"]),
)
def test_a_printed_duration_reads_back_to_the_same_number(number: str, unit: str) -> None:
    period = Period.parse(f"{number}{unit}")
    assert float(Period.parse(str(period))) == float(period)


@pytest.mark.parametrize(
    ("text", "size"),
    [("0B", 0), ("1500B", 1500), ("4KiB", 4096), ("64MiB", 64 << 20), ("1GiB", 1 << 30), ("2TiB", 2 << 40)],
)
def test_a_size_is_a_number_of_bytes_and_prints_as_it_was_written(text: str, size: int) -> None:
    assert Size.parse(text) == size
    assert str(Size(size)) == text


@given(st.integers(0, 10**15 - 1))
def test_a_printed_size_reads_back_to_the_same_number(size: int) -> None:
    assert int(Size.parse(str(Size(size)))) == size


@pytest.mark.parametrize("text", ["", "64", "64MB", "1.5GiB", "-1B", "64 MiB", "64mib"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f'"{text}" is no size')):
        Size.parse(text)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"pause": 3, "period": "off", "room": "1B"},
            '3 has no unit: write it as text with one, like "20ms" - at `$.pause`',
        ),
        (
            {"pause": "3s", "period": 1.5, "room": "1B"},
            '1.5 has no unit: write it as text with one, like "20ms" - at `$.period`',
        ),
        (
            {"pause": "3s", "period": "off", "room": 64},
            '64 has no unit: write it as text with one, like "64MiB" - at `$.room`',
        ),
        ({"pause": "3s", "period": "off", "room": "64"}, '"64" is no size'),
    ],
)
def test_a_table_of_quantities_says_where_the_mistake_is(table: dict[str, Any], message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=re.escape(message)):
        msgspec.convert(table, Table, dec_hook=decode)


def test_a_table_of_quantities_goes_to_text_and_back() -> None:
    table = Table(Duration(0.02), Period(math.inf), Size(64 << 20))
    texts = msgspec.to_builtins(table, enc_hook=encode)
    assert texts == {"pause": "20ms", "period": "off", "room": "64MiB"}
    assert msgspec.convert(texts, Table, dec_hook=decode) == table


def test_other_types_are_nobody_s_quantity() -> None:
    with pytest.raises(NotImplementedError, match="complex"):
        decode(complex, "1")
    with pytest.raises(NotImplementedError, match="complex"):
        encode(1j)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [(Duration, "20ms", "off"), (Period, "off", "20"), (Size, "64MiB", "64MB")],
)
def test_the_schema_pattern_says_what_the_parser_says(kind: type, good: str, bad: str) -> None:
    assert re.search(PATTERNS[kind], good)
    assert not re.search(PATTERNS[kind], bad)
