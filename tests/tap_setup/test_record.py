import pytest
from hypothesis import given
from hypothesis import strategies as st

from colo_compare.errors import SetupError
from tap_setup.record import MARK, MAX_ALIAS, Record, read_record, write_record

words = st.text(st.characters(codec="ascii", categories=("L", "N"), include_characters="-_,.:/"), min_size=1)


def test_reads_as_a_sentence() -> None:
    record = Record({"mtu": "1500", "arp": "on"}, "uplink to switch 3")
    assert write_record("eth1", record) == "colo-tap-setup was mtu=1500 arp=on | uplink to switch 3"


def test_an_alias_may_have_a_bar_in_it() -> None:
    record = Record({"mtu": "1500"}, "rack 3 | port 4")
    assert read_record(write_record("eth1", record)) == record


@given(st.dictionaries(words.filter(lambda word: "=" not in word), words, min_size=1), st.text(max_size=40))
def test_is_read_as_it_was_written(before: dict[str, str], alias: str) -> None:
    record = Record(before, alias)
    try:
        text = write_record("eth1", record)
    except SetupError:
        return
    assert len(text.encode()) <= MAX_ALIAS
    assert read_record(text) == record


@pytest.mark.parametrize("alias", ["", MARK, "uplink", f"not {MARK} was mtu=1500"])
def test_other_aliases_are_no_record(alias: str) -> None:
    assert read_record(alias) is None


def test_the_first_value_counts() -> None:
    record = Record({"mtu": "1500"}, "").with_value("mtu", "9000").with_value("arp", "on")
    assert record == Record({"mtu": "1500", "arp": "on"}, "")


def test_does_not_cut_an_alias_off() -> None:
    fits = "a" * (MAX_ALIAS - len(write_record("eth1", Record({"mtu": "1500"}, "")) + " | "))
    assert len(write_record("eth1", Record({"mtu": "1500"}, fits))) == MAX_ALIAS
    with pytest.raises(SetupError, match="cannot note on eth1"):
        write_record("eth1", Record({"mtu": "1500"}, fits + "ä"))
