import math
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from colo_compare.ports.faults import REORDER_DELAY, FaultLine, Faults, parse_faults


def turn(item: int, _: Random) -> int:
    return -item


def run(faults: Faults, count: int = 1000, salt: str = "x") -> list[int]:
    """What comes out of the line when frames enter it at one time."""
    line = FaultLine[int](faults, salt, turn)
    for number in range(1, count + 1):
        line.enter(number, 1000, 0.0)
    return line.leave(math.inf)


def test_no_faults_change_nothing() -> None:
    assert run(Faults()) == list(range(1, 1001))


def test_all_of_them_are_read() -> None:
    text = "loss:0.01,duplicate:0.02,corrupt:0.03,reorder:0.04,delay:20ms,rate:100,seed:7"
    assert parse_faults(text) == Faults(0.01, 0.02, 0.03, 0.04, 0.02, 100.0, 7)


def test_the_seed_decides() -> None:
    assert run(Faults(loss=0.5, seed=1)) == run(Faults(loss=0.5, seed=1))
    assert run(Faults(loss=0.5, seed=1)) != run(Faults(loss=0.5, seed=2))
    assert run(Faults(loss=0.5, seed=1), salt="send") != run(Faults(loss=0.5, seed=1), salt="receive")


def test_loss() -> None:
    out = run(Faults(loss=0.1))
    assert 850 < len(out) < 950
    assert out == sorted(out)
    assert run(Faults(loss=1.0)) == []


def test_duplicates() -> None:
    out = run(Faults(duplicate=0.1))
    assert 1050 < len(out) < 1150
    assert sorted(set(out)) == list(range(1, 1001))


def test_corruption() -> None:
    line = FaultLine[int](Faults(corrupt=0.1), "x", turn)
    for number in range(1, 1001):
        line.enter(number, 100, 0.0)
    out = line.leave(0.0)
    assert [abs(number) for number in out] == list(range(1, 1001))
    assert line.corrupted == sum(number < 0 for number in out)
    assert 50 < line.corrupted < 150


def test_reordered_frames_are_overtaken() -> None:
    line = FaultLine[int](Faults(reorder=0.1), "x", turn)
    for number in range(1, 1001):
        line.enter(number, 100, 0.0)
    at_once = line.leave(0.0)
    late = line.leave(REORDER_DELAY)
    assert at_once == sorted(at_once)
    assert late == sorted(late)
    assert len(late) == line.reordered
    assert 50 < len(late) < 150


def test_delay_keeps_the_order_and_the_distances() -> None:
    line = FaultLine[int](Faults(delay=0.02), "x", turn)
    assert line.next_due() == math.inf
    line.enter(1, 100, 5.0)
    line.enter(2, 100, 5.001)
    assert line.next_due() == 5.02
    assert line.leave(5.0199) == []
    assert line.leave(5.02) == [1]
    assert line.next_due() == 5.001 + 0.02
    assert len(line) == 1


def test_rate() -> None:
    line = FaultLine[int](Faults(rate=8), "x", turn)  # 1,000 bytes take 1 ms
    for number in range(10):
        line.enter(number, 1000, 1.0)
    assert line.leave(1.00501) == [0, 1, 2, 3, 4]
    line.leave(math.inf)
    line.enter(10, 1000, 2.0)  # it was idle in between
    assert abs(line.next_due() - 2.001) < 1e-9


@given(
    st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.sampled_from((0.0, 0.02)), st.integers(0, 5),
    st.lists(st.floats(0, 0.1), max_size=60),
)  # fmt: skip
def test_frames_are_conserved(
    loss: float, duplicate: float, reorder: float, delay: float, seed: int, steps: list[float]
) -> None:
    faults = Faults(loss=loss, duplicate=duplicate, reorder=reorder, delay=delay, seed=seed)
    line = FaultLine[int](faults, "x", turn)
    now = 0.0
    out = 0
    for number, step in enumerate(steps):
        now += step
        line.enter(number, 100, now)
        out += len(line.leave(now))
    assert out + len(line) == len(steps) - line.lost + line.duplicated
    assert line.next_due() >= now or not len(line)
