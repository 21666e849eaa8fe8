from hypothesis import given
from hypothesis import strategies as st

from colo_compare.commands.hexdiff import hex_diff


def test_what_differs_is_pointed_to() -> None:
    lines = list(hex_diff(b"at 21:01:32 GMT", 10, b"01:33 GMT!!", 4, 50))
    assert lines == [
        "          primary                            secondary",
        "00000028  61 74 20 32 31 3a 30 31 at 21:01                     30 31       01",
        "00000030  3a 33 32 20 47 4d 54    :32 GMT  ! 3a 33 33 20 47 4d 54 21 :33 GMT!",
        "                ^^                                 ^^",
        "00000038                                     21                      !",
    ]


def test_a_side_that_said_nothing() -> None:
    assert list(hex_diff(b"x", 0, b"", 0, 0))[1:] == ["00000000  78                      x"]
    assert list(hex_diff(b"", 0, b"", 0, 0)) == ["          primary                            secondary"]


@given(
    st.binary(max_size=64), st.binary(max_size=64), st.binary(max_size=64), st.binary(max_size=64),
    st.integers(0, 1 << 31),
)  # fmt: skip
def test_every_byte_is_there_once_in_eighty_columns(
    our_before: bytes, ours: bytes, their_before: bytes, theirs: bytes, offset: int
) -> None:
    lines = list(
        hex_diff(our_before + ours, len(our_before), their_before + theirs, len(their_before), offset)
    )
    assert all(len(line) <= 80 and line.isprintable() for line in lines)
    rows = [line for line in lines[1:] if line[0] != " "]
    assert bytes.fromhex("".join(row[10:33] for row in rows)) == our_before + ours
    assert bytes.fromhex("".join(row[45:68] for row in rows)) == their_before + theirs


def test_what_is_far_from_a_difference_is_left_out() -> None:
    same = bytes(80)
    lines = list(hex_diff(same + b"a" + same, 80, same + b"b" + same, 80, 80, 1))
    assert [line[:8] for line in lines[1:]] == ["...", "00000048", "00000050", " " * 8, "00000058", "..."]
    assert len(list(hex_diff(same, 0, same, 0, 0, 1))) == 11
