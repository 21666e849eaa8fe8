import pytest

from colo_compare.core.flow_table import FlowTable
from colo_compare.core.hold import Held
from colo_compare.core.ledger import Ledger
from colo_compare.core.mirror import Mirror
from colo_compare.core.settings import Settings
from colo_compare.core.tcp_flow import CLOSED, ESTABLISHED, HALF_OPEN, TcpFlow
from colo_compare.wire.frame import Frame

SETTINGS = Settings(
    max_flows=8, max_half_open=4, idle_timeout=100.0, half_open_timeout=10.0, closed_timeout=20.0
)


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(SETTINGS, 1000.0)


@pytest.fixture
def table(ledger: Ledger) -> FlowTable:
    return FlowTable(ledger, Mirror(ledger))


def later(table: FlowTable, now: float) -> None:
    """Let time pass as the proxy does, with a look each second."""
    while table.ledger.now < now:
        table.ledger.now += 1.0
        table.age()


def wait(flow: TcpFlow) -> None:
    """Let a frame of the primary wait in a flow."""
    flow.enqueue(Held(flow, Frame(b"", 0), None, 0.0), False)


def test_a_flow_is_found_by_its_key(table: FlowTable, ledger: Ledger) -> None:
    flow = table.add(b"a")
    ledger.now = 1005.0
    assert table.find_key(b"a") is flow
    assert flow.last_seen == 1005.0
    assert table.find_key(b"b") is None
    assert (flow.state, table.counts()) == (HALF_OPEN, {"half_open": 1, "established": 0, "closed": 0})
    assert ledger.counters.flows_opened == 1


def test_a_flow_that_is_found_has_caught_up_with_the_commits(table: FlowTable, ledger: Ledger) -> None:
    flow = table.add(b"a")
    flow.blocked = True
    ledger.generation += 1
    assert table.find_key(b"a") is flow
    assert (flow.blocked, flow.generation) == (False, ledger.generation)


def frame_of(key: bytes) -> Frame:
    frame = Frame(b"", 0)
    frame.join(key)
    return frame


@pytest.mark.parametrize("tail", [b"", b" tagged"])
def test_a_flow_is_found_by_its_frames(table: FlowTable, tail: bytes) -> None:
    keys = [b"plain key " + end + tail for end in (b"-1", b"-2", b"-3")]
    one, two = table.add(keys[0]), table.add(keys[1])
    for key, flow in zip([0, 0, 1, 1, 0, 2, 0], [one, one, two, two, one, None, one], strict=True):
        assert table.find(frame_of(keys[key])) is flow
    table.evict(one)
    assert table.find(frame_of(keys[0])) is None
    again = table.add(keys[1])
    assert table.find(frame_of(keys[1])) is again


def test_looking_at_flows_early_changes_nothing() -> None:
    ledger = Ledger(Settings(), 1000.0)
    table = FlowTable(ledger, Mirror(ledger))
    keys = [number.to_bytes(12, "big") for number in range(8001)]
    flow = table.add(keys[0])
    for many in (False, True):
        if many:
            for key in keys[1:8000]:
                table.add(key)
        ledger.now += 1.0
        ledger.generation += 1
        table.warm([frame_of(keys[0]), frame_of(keys[8000])])
        assert (flow.last_seen, flow.generation) == (1000.0, 0)
        assert len(table.flows) == (8000 if many else 1)


def test_states(table: FlowTable) -> None:
    one, two = table.add(b"a"), table.add(b"b")
    table.established(one)
    table.close(two)
    assert (one.state, two.state) == (ESTABLISHED, CLOSED)
    assert table.counts() == {"half_open": 0, "established": 1, "closed": 1}


def test_a_new_connection_of_the_same_key(table: FlowTable) -> None:
    old = table.add(b"a")
    table.close(old)
    new = table.add(b"a")
    assert table.find_key(b"a") is new
    assert table.counts() == {"half_open": 1, "established": 0, "closed": 0}
    table.evict(old)
    assert table.find_key(b"a") is new


# Ageing


@pytest.mark.parametrize(("state", "lifetime"), [(HALF_OPEN, 10.0), (ESTABLISHED, 100.0), (CLOSED, 20.0)])
def test_flows_age_out_by_state(table: FlowTable, ledger: Ledger, state: int, lifetime: float) -> None:
    flow = table.add(b"a")
    if state == ESTABLISHED:
        table.established(flow)
    if state == CLOSED:
        table.close(flow)
    later(table, 1000.0 + lifetime - 1.0)
    assert table.flows.get(b"a") is not None
    later(table, 1000.0 + lifetime + 70.0)
    assert table.flows.get(b"a") is None
    assert ledger.counters.flows_evicted == 1


def test_a_flow_in_use_stays(table: FlowTable) -> None:
    table.established(table.add(b"a"))
    for now in range(1050, 2000, 50):
        later(table, float(now))
        assert table.find_key(b"a") is not None


def test_a_flow_in_which_a_frame_waits_stays(table: FlowTable) -> None:
    wait(table.add(b"a"))
    later(table, 1500.0)
    assert table.flows.get(b"a") is not None


def test_a_flow_that_was_replaced_is_not_looked_at(table: FlowTable) -> None:
    table.add(b"a")
    new = table.add(b"a")
    table.established(new)
    later(table, 1050.0)
    assert table.find_key(b"a") is new


def test_the_numbers_of_a_promoted_guest_are_kept_for_ever(table: FlowTable) -> None:
    flow = table.add(b"a")
    table.established(flow)
    flow.primary.seq_offset = 5
    later(table, 2000.0)
    assert table.flows.get(b"a") is not None


def test_a_long_sleep(table: FlowTable, ledger: Ledger) -> None:
    for number in range(5):
        table.add(bytes((number,)))
    ledger.now = 1_000_000.0
    table.age()
    assert len(table.flows) == 0


# Bounds


def test_the_oldest_half_open_flow_gives_way(table: FlowTable) -> None:
    for number in range(4):
        assert table.has_room()
        table.add(bytes((number,)))
    assert table.has_room()
    assert [flow.key for flow in table.flows.values()] == [b"\x01", b"\x02", b"\x03"]


def test_a_half_open_flow_that_waits_does_not(table: FlowTable) -> None:
    for number in range(4):
        wait(table.add(bytes((number,))))
    assert not table.has_room()
    assert len(table.flows) == 4


def test_a_closed_flow_gives_way_in_a_full_table(table: FlowTable) -> None:
    flows = [table.add(bytes((number,))) for number in range(8)]
    for flow in flows:
        table.established(flow)
    assert not table.has_room()
    table.close(flows[3])
    assert table.has_room()
    assert table.flows.get(b"\x03") is None


def test_a_half_open_flow_gives_way_in_a_full_table(table: FlowTable) -> None:
    flows = [table.add(bytes((number,))) for number in range(8)]
    for flow in flows[1:]:
        table.established(flow)
    assert table.has_room()
    assert table.flows.get(b"\x00") is None


def test_after_a_commit_idle_equal_flows_make_room(table: FlowTable, ledger: Ledger) -> None:
    flows = [table.add(bytes((number,))) for number in range(8)]
    for flow in flows:
        table.established(flow)
        flow.secondary.placed = flow.primary.placed = True
    flows[0].primary.seq_offset = 7
    ledger.generation += 1
    ledger.known_equal = True
    table.make_room()
    assert (len(table.flows), table.flows.get(b"\x00") is not None, ledger.known_equal) == (7, True, True)


def test_no_room_is_made_where_there_is_some(table: FlowTable, ledger: Ledger) -> None:
    table.established(table.add(b"a"))
    ledger.generation += 1
    table.make_room()
    assert len(table.flows) == 1


def test_a_forgotten_offset_is_remembered_as_such(table: FlowTable, ledger: Ledger) -> None:
    flow = table.add(b"a")
    flow.secondary.seq_offset = 5
    ledger.known_equal = True
    table.evict(flow)
    assert not ledger.known_equal


@pytest.mark.parametrize("flows", [0, 1])
def test_a_long_sleep_is_not_walked_through_slot_by_slot(table: FlowTable, flows: int) -> None:
    for index in range(flows):
        table.add(bytes((index,)))
    table.ledger.now = 4e9
    table.age()
    flow = table.add(b"new")
    later(table, 4e9 + 15.0)
    assert table.find_key(b"new") is None
    assert flow.last_seen == 4e9
