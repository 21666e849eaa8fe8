"""A COLO pair's life as conversations: what happens, and the steps that follow."""

from collections.abc import Callable

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from colo_compare.checkpoint.qemu_sequence import (
    COPYING,
    DRAINING,
    IDLE,
    LOADED,
    OVER,
    RESUMING,
    STOPPING,
    VERDICT,
    ContinuePrimary,
    Examine,
    ReportBegun,
    ReportCommitted,
    ReportFailed,
    ReportLoaded,
    ReportLost,
    ReportPaused,
    Sequence,
    Step,
    StopPrimary,
    Trigger,
)
from colo_compare.core.sides import PRIMARY, SECONDARY

PATIENCE = 1.0


class Pair:
    """A sequence and the clock of its events; a second goes by with each of them."""

    def __init__(self) -> None:
        self.sequence = Sequence(PATIENCE)
        self.now = 100.0

    @property
    def state(self) -> str:
        return self.sequence.state

    def tick(self) -> float:
        self.now += 0.25
        return self.now

    def request(self) -> list[Step]:
        return self.sequence.request(self.tick())

    def cancel(self) -> list[Step]:
        return self.sequence.cancel(self.tick())

    def drained(self) -> list[Step]:
        return self.sequence.drained(self.tick())

    def stop(self, side: int) -> list[Step]:
        now = self.tick()
        return self.sequence.stopped(side, now + 1e9, now)

    def resume(self, side: int) -> list[Step]:
        now = self.tick()
        return self.sequence.resumed(side, now + 1e9, now)

    def leave(self, side: int) -> list[Step]:
        return self.sequence.left_colo(side)

    def lose(self, side: int, detail: str = "dead") -> list[Step]:
        return self.sequence.lost(side, detail, self.tick())

    def lose_sight(self, side: int) -> None:
        self.sequence.lost_sight(side)

    def return_to(self, side: int, *, runs: bool) -> list[Step]:
        now = self.tick()
        return self.sequence.returned(side, runs, now + 1e9, now)

    def refuse(self) -> list[Step]:
        return self.sequence.refused("no", self.tick())

    def wait(self, seconds: float) -> list[Step]:
        self.now += seconds
        return self.sequence.handle_timer(self.now)

    def get_to(self, state: str) -> "Pair":
        """Make a checkpoint up to a state."""
        steps: tuple[Callable[[], list[Step]], ...] = (
            self.request,
            lambda: self.stop(PRIMARY),
            self.drained,
            lambda: self.stop(SECONDARY) + self.resume(SECONDARY),
        )
        for step in steps:
            if self.state == state:
                break
            step()
        assert self.state == state
        return self


@pytest.fixture
def pair() -> Pair:
    return Pair()


def test_a_checkpoint(pair: Pair) -> None:
    assert pair.request() == [StopPrimary()]
    assert pair.stop(PRIMARY) == [ReportPaused()]
    assert pair.drained() == [Trigger()]
    assert pair.stop(SECONDARY) == []
    assert pair.resume(SECONDARY) == [ReportLoaded()]
    assert pair.resume(PRIMARY) == [ReportCommitted(1.0)]
    assert pair.state == IDLE


def test_the_primary_s_resumption_may_be_seen_first(pair: Pair) -> None:
    pair.get_to(COPYING)
    assert pair.resume(PRIMARY) == []
    assert pair.stop(SECONDARY) == []
    assert pair.resume(SECONDARY) == [ReportLoaded(), ReportCommitted(0.5)]
    assert pair.state == IDLE


@pytest.mark.parametrize("state", [STOPPING, DRAINING, COPYING, LOADED])
def test_a_request_in_the_middle_of_a_checkpoint_follows_it(pair: Pair, state: str) -> None:
    pair.get_to(state)
    assert pair.request() == []
    pair.get_to(LOADED)
    committed, stop = pair.resume(PRIMARY)
    assert isinstance(committed, ReportCommitted)
    assert stop == StopPrimary()


def test_a_primary_that_stands_still_already_is_not_stopped(pair: Pair) -> None:
    assert pair.stop(PRIMARY) == []  # by somebody else
    assert pair.request() == [ReportPaused()]
    assert pair.drained() == [Trigger()]


def test_somebody_s_stop_and_cont_are_no_checkpoint(pair: Pair) -> None:
    assert pair.stop(PRIMARY) == []
    assert pair.resume(PRIMARY) == []
    assert pair.state == IDLE


@pytest.mark.parametrize("order", [(PRIMARY, SECONDARY), (SECONDARY, PRIMARY)])
def test_a_checkpoint_that_qemu_begins_is_followed(pair: Pair, order: tuple[int, int]) -> None:
    assert pair.stop(order[0]) == []
    assert pair.stop(order[1]) == [ReportBegun(), ReportPaused()]
    assert pair.drained() == []
    assert pair.resume(SECONDARY) == [ReportLoaded()]
    assert isinstance(pair.resume(PRIMARY)[0], ReportCommitted)
    assert pair.state == IDLE


def test_a_request_is_served_by_what_qemu_has_begun(pair: Pair) -> None:
    pair.stop(SECONDARY)
    pair.stop(PRIMARY)
    assert pair.request() == []
    pair.drained()
    pair.resume(SECONDARY)
    assert len(pair.resume(PRIMARY)) == 1


def test_a_checkpoint_that_qemu_begins_in_the_middle_of_ours_is_taken_for_it(pair: Pair) -> None:
    pair.get_to(STOPPING)
    pair.stop(SECONDARY)
    assert pair.stop(PRIMARY) == [ReportPaused()]
    assert pair.drained() == []  # it is under way already
    assert pair.resume(SECONDARY) == [ReportLoaded()]


def test_a_secondary_that_loads_while_the_primary_is_drained(pair: Pair) -> None:
    pair.stop(SECONDARY)
    pair.stop(PRIMARY)
    assert pair.resume(SECONDARY) == []
    assert pair.drained() == [ReportLoaded()]
    assert isinstance(pair.resume(PRIMARY)[0], ReportCommitted)


def test_a_primary_that_resumed_before_it_was_drained_makes_the_checkpoint_void(pair: Pair) -> None:
    pair.stop(SECONDARY)
    pair.stop(PRIMARY)
    pair.resume(SECONDARY)
    assert pair.resume(PRIMARY) == []
    (failed,) = pair.drained()
    assert isinstance(failed, ReportFailed)
    assert not failed.secondary_intact


# Giving up


@pytest.mark.parametrize("state", [STOPPING, DRAINING])
def test_one_that_is_cancelled_before_the_trigger_lets_the_primary_run(pair: Pair, state: str) -> None:
    pair.get_to(state)
    assert pair.cancel() == [ContinuePrimary()]
    assert pair.stop(PRIMARY) == []
    assert pair.drained() == []
    assert pair.request() == []
    assert pair.resume(PRIMARY) == [StopPrimary()]


def test_one_that_is_cancelled_before_the_primary_stopped_at_all(pair: Pair) -> None:
    pair.get_to(STOPPING)
    pair.cancel()
    assert pair.wait(PATIENCE) == []
    assert pair.state == IDLE


@pytest.mark.parametrize("state", [COPYING, LOADED])
def test_one_that_is_cancelled_after_the_trigger_ends_in_silence(pair: Pair, state: str) -> None:
    pair.get_to(state)
    assert pair.cancel() == []
    if state == COPYING:
        assert pair.stop(SECONDARY) == []
        assert pair.resume(SECONDARY) == []
    assert pair.resume(PRIMARY) == []
    assert pair.request() == [StopPrimary()]


def test_a_refused_stop_leaves_everything_as_it_was(pair: Pair) -> None:
    pair.get_to(STOPPING)
    assert pair.refuse() == [ReportFailed("no", True)]
    assert pair.state == IDLE


def test_a_refused_trigger_lets_the_primary_run(pair: Pair) -> None:
    pair.get_to(COPYING)
    assert pair.refuse() == [ReportFailed("no", True), ContinuePrimary()]
    assert pair.state == RESUMING
    assert pair.resume(PRIMARY) == []
    assert pair.state == IDLE
    assert pair.refuse() == []


# Deaths


@pytest.mark.parametrize(
    ("state", "steps"),
    [
        (IDLE, []),
        (STOPPING, [ReportFailed("dead", True)]),
        (DRAINING, [ReportFailed("dead", True)]),
        (LOADED, [ReportCommitted(None)]),
    ],
)
def test_the_primary_dies(pair: Pair, state: str, steps: list[Step]) -> None:
    assert pair.get_to(state).lose(PRIMARY) == [*steps, ReportLost(PRIMARY, "dead")]
    assert pair.state == OVER


@pytest.mark.parametrize("state", [IDLE, STOPPING, DRAINING, COPYING, LOADED])
def test_the_secondary_dies(pair: Pair, state: str) -> None:
    failed = [] if state == IDLE else [ReportFailed("dead", False)]
    assert pair.get_to(state).lose(SECONDARY) == [*failed, ReportLost(SECONDARY, "dead")]
    assert pair.state == OVER


def test_the_primary_dies_while_copying_and_the_secondary_goes_on_from_the_new_state(pair: Pair) -> None:
    pair.get_to(COPYING)
    pair.stop(SECONDARY)
    assert pair.lose(PRIMARY) == []
    assert pair.state == VERDICT
    assert pair.resume(SECONDARY) == [ReportLoaded(), ReportCommitted(None), ReportLost(PRIMARY, "dead")]


@pytest.mark.parametrize("first", ["death", "exit"])
def test_the_primary_dies_while_copying_and_the_secondary_goes_on_from_the_old_state(
    pair: Pair, first: str
) -> None:
    pair.get_to(COPYING)
    pair.stop(SECONDARY)
    if first == "exit":
        assert isinstance(pair.leave(SECONDARY)[0], Examine)
        failed, lost = pair.lose(PRIMARY)
    else:
        pair.lose(PRIMARY)
        failed, lost = pair.leave(SECONDARY)
    assert isinstance(failed, ReportFailed)
    assert failed.secondary_intact
    assert lost == ReportLost(PRIMARY, "dead")


def test_the_primary_dies_and_the_secondary_says_nothing(pair: Pair) -> None:
    pair.get_to(COPYING)
    pair.lose(PRIMARY)
    assert pair.wait(PATIENCE / 2) == []
    failed, lost = pair.wait(PATIENCE)
    assert isinstance(failed, ReportFailed)
    assert not failed.secondary_intact
    assert lost == ReportLost(PRIMARY, "dead")


def test_both_die_while_copying(pair: Pair) -> None:
    pair.get_to(COPYING)
    pair.lose(PRIMARY, "first")
    assert pair.lose(SECONDARY, "second") == [ReportFailed("second", False), ReportLost(PRIMARY, "first")]


@pytest.mark.parametrize("side", [PRIMARY, SECONDARY])
def test_leaving_colo_is_examined(pair: Pair, side: int) -> None:
    (examine,) = pair.leave(side)
    assert isinstance(examine, Examine)
    assert pair.state == IDLE


def test_nothing_means_anything_when_it_is_over(pair: Pair) -> None:
    pair.get_to(COPYING)
    pair.sequence.end()
    for step in (
        pair.request,
        pair.cancel,
        pair.drained,
        pair.refuse,
        lambda: pair.stop(PRIMARY),
        lambda: pair.stop(SECONDARY),
        lambda: pair.resume(SECONDARY),
        lambda: pair.resume(PRIMARY),
        lambda: pair.leave(PRIMARY),
        lambda: pair.lose(PRIMARY),
        lambda: pair.wait(1000),
    ):
        assert step() == []
    assert pair.state == OVER


# Time


@pytest.mark.parametrize("state", [STOPPING, COPYING, LOADED])
def test_a_checkpoint_that_takes_too_long_is_examined_again_and_again(pair: Pair, state: str) -> None:
    pair.get_to(state)
    assert pair.wait(PATIENCE - 0.01) == []
    for _ in range(2):
        (examine,) = pair.wait(PATIENCE)
        assert examine == Examine(f"the checkpoint has not got past {state} within 1.0 s")


@pytest.mark.parametrize("state", [IDLE, DRAINING])
def test_where_the_pair_waits_for_the_proxy_there_is_no_hurry(pair: Pair, state: str) -> None:
    assert pair.get_to(state).wait(1e6) == []


def test_long_checkpoints_make_it_patient(pair: Pair) -> None:
    pair.get_to(LOADED)
    (committed,) = pair.resume(PRIMARY)
    assert committed == ReportCommitted(1.0)
    assert pair.sequence.limit == PATIENCE + 2 * 1.0
    pair.get_to(COPYING)
    assert pair.wait(2.9) == []
    assert len(pair.wait(0.2)) == 1


# Whatever happens


@pytest.mark.parametrize(("first", "second"), [(PRIMARY, SECONDARY), (SECONDARY, PRIMARY)])
def test_a_checkpoint_of_somebody_else_whose_events_come_one_guest_after_the_other(
    pair: Pair, first: int, second: int
) -> None:
    assert pair.stop(first) + pair.resume(first) + pair.stop(second) == []
    begun, failed = pair.resume(second)
    assert begun == ReportBegun()
    assert isinstance(failed, ReportFailed)
    assert not failed.secondary_intact


def test_one_guest_that_somebody_stops_for_a_while_is_no_checkpoint(pair: Pair) -> None:
    for side in (PRIMARY, PRIMARY):
        assert pair.stop(side) + pair.resume(side) == []
    pair.get_to(LOADED)
    assert pair.resume(PRIMARY) == [ReportCommitted(1.0)]
    assert pair.stop(SECONDARY) + pair.resume(SECONDARY) == []


@pytest.mark.parametrize("side", [PRIMARY, SECONDARY])
def test_out_of_sight_while_nothing_happens(pair: Pair, side: int) -> None:
    pair.lose_sight(side)
    assert pair.return_to(side, runs=True) == []
    pair.get_to(COPYING)


@pytest.mark.parametrize(("side", "other"), [(PRIMARY, SECONDARY), (SECONDARY, PRIMARY)])
def test_a_checkpoint_of_somebody_else_that_was_not_seen(pair: Pair, side: int, other: int) -> None:
    pair.lose_sight(side)
    assert pair.stop(other) == []
    assert pair.resume(other) == []
    assert [type(step) for step in pair.return_to(side, runs=True)] == [Examine]


def test_the_primary_s_stop_was_not_seen(pair: Pair) -> None:
    pair.get_to(STOPPING).lose_sight(PRIMARY)
    assert pair.return_to(PRIMARY, runs=False) == [ReportPaused()]
    assert pair.state == DRAINING


@pytest.mark.parametrize(
    ("state", "runs", "step"),
    [(STOPPING, True, StopPrimary()), (COPYING, False, Trigger()), (RESUMING, False, ContinuePrimary())],
)
def test_what_the_primary_may_not_have_heard_is_said_again(
    pair: Pair, state: str, runs: bool, step: Step
) -> None:
    if state == RESUMING:
        pair.get_to(DRAINING).cancel()
    else:
        pair.get_to(state)
    pair.lose_sight(PRIMARY)
    assert pair.return_to(PRIMARY, runs=runs) == [step]


def test_the_secondary_copies_already_when_the_primary_is_seen_again(pair: Pair) -> None:
    pair.get_to(COPYING).lose_sight(PRIMARY)
    assert pair.stop(SECONDARY) == []
    assert pair.return_to(PRIMARY, runs=False) == []


def test_the_primary_s_resumption_was_not_seen(pair: Pair) -> None:
    pair.get_to(LOADED).lose_sight(PRIMARY)
    assert pair.return_to(PRIMARY, runs=True) == [ReportCommitted(1.0)]
    assert pair.state == IDLE


@pytest.mark.parametrize("returns", [False, True])
@pytest.mark.parametrize("runs", [False, True])
def test_the_primary_tells_what_the_secondary_could_not(pair: Pair, returns: bool, runs: bool) -> None:
    pair.get_to(COPYING).lose_sight(SECONDARY)
    if returns:
        assert pair.return_to(SECONDARY, runs=runs) == []
    assert pair.resume(PRIMARY) == [ReportLoaded(), ReportCommitted(0.5 + 0.25 * returns)]
    assert pair.state == IDLE


def test_the_primary_resumes_before_anybody_sees_that_the_secondary_is_out_of_sight(pair: Pair) -> None:
    pair.get_to(COPYING)
    assert pair.resume(PRIMARY) == []
    pair.lose_sight(SECONDARY)
    assert pair.return_to(SECONDARY, runs=True) == [ReportLoaded(), ReportCommitted(0.5)]
    assert pair.state == IDLE


def test_what_the_secondary_tells_after_its_return_counts(pair: Pair) -> None:
    pair.get_to(COPYING).lose_sight(SECONDARY)
    pair.return_to(SECONDARY, runs=False)
    assert pair.resume(SECONDARY) == [ReportLoaded()]  # it stood still, so it runs from the new state
    assert pair.resume(PRIMARY) == [ReportCommitted(1.0)]


class AnyLife(RuleBasedStateMachine):
    """Any order of events: reports keep to the contract, and a trigger is only given to a stopped primary."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair()
        self.reports: list[Step] = []
        self.lost = False

    def take(self, steps: list[Step]) -> None:
        for step in steps:
            assert not self.lost, f"{step} after the end of the pair"
            if isinstance(step, Trigger):
                assert not self.pair.sequence._primary_runs
            if isinstance(step, ReportBegun | ReportPaused):
                assert self.reports in ([], [ReportBegun()])
            if isinstance(step, ReportLoaded):
                assert self.reports[-1:] == [ReportPaused()]
            if isinstance(step, ReportCommitted):
                assert self.reports[-1:] == [ReportLoaded()]
            if isinstance(step, ReportCommitted | ReportFailed):
                self.reports = []
            elif isinstance(step, ReportBegun | ReportPaused | ReportLoaded):
                self.reports.append(step)
            elif isinstance(step, ReportLost):
                assert self.reports == []
                self.lost = True

    @rule()
    def request(self) -> None:
        self.take(self.pair.request())

    @rule()
    def cancel(self) -> None:
        self.take(self.pair.cancel())
        self.reports = []

    @rule()
    def drained(self) -> None:
        self.take(self.pair.drained())

    @rule(side=st.sampled_from([PRIMARY, SECONDARY]))
    def stop(self, side: int) -> None:
        self.take(self.pair.stop(side))

    @rule(side=st.sampled_from([PRIMARY, SECONDARY]))
    def resume(self, side: int) -> None:
        self.take(self.pair.resume(side))

    @rule(side=st.sampled_from([PRIMARY, SECONDARY]))
    def leave(self, side: int) -> None:
        self.take(self.pair.leave(side))

    @rule(seconds=st.sampled_from([0.1, 5.0]))
    def wait(self, seconds: float) -> None:
        self.take(self.pair.wait(seconds))

    @precondition(lambda self: not self.lost)
    @rule(side=st.sampled_from([PRIMARY, SECONDARY]))
    def lose(self, side: int) -> None:
        self.take(self.pair.lose(side))

    @rule(side=st.sampled_from([PRIMARY, SECONDARY]))
    def lose_sight(self, side: int) -> None:
        self.pair.lose_sight(side)

    @rule(side=st.sampled_from([PRIMARY, SECONDARY]), runs=st.booleans())
    def return_to(self, side: int, runs: bool) -> None:
        self.take(self.pair.return_to(side, runs=runs))

    @invariant()
    def the_timer_is_ahead_or_off(self) -> None:
        assert (self.pair.state in (IDLE, DRAINING, OVER)) == (self.pair.sequence.deadline == float("inf"))


test_any_life = AnyLife.TestCase
