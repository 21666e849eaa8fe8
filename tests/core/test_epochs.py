import math

from colo_compare.core.epochs import COMPARING, PAUSED, REQUESTED, Epochs
from colo_compare.core.settings import Settings


def running(settings: Settings | None = None) -> Epochs:
    """Epoch 1 since time 0."""
    epochs = Epochs(settings or Settings(), 0.0)
    epochs.want("startup", "", 0.0)
    epochs.begin(0.0)
    epochs.commit(0.0)
    return epochs


def test_nothing_is_due_where_nothing_is_wanted() -> None:
    epochs = Epochs(Settings(), 0.0)
    assert (epochs.state, epochs.number) == (COMPARING, 0)
    assert epochs.due_at() == math.inf
    assert epochs.timeout_at() == math.inf


def test_one_round() -> None:
    epochs = Epochs(Settings(checkpoint_timeout=5.0), 0.0)
    assert epochs.want("payload", "flow", 1.0)
    assert epochs.due_at() == 1.0
    epochs.begin(1.0)
    assert (epochs.state, epochs.running, epochs.running_flow) == (REQUESTED, ["payload"], "flow")
    assert (epochs.due_at(), epochs.timeout_at()) == (math.inf, 6.0)
    epochs.pause()
    assert (epochs.state, epochs.timeout_at()) == (PAUSED, 6.0)
    epochs.commit(2.0)
    assert (epochs.state, epochs.number, epochs.wanted) == (COMPARING, 1, [])


def test_reasons_come_once_each_and_the_first_names_the_flow() -> None:
    epochs = Epochs(Settings(), 0.0)
    assert epochs.want("payload", "one", 1.0)
    assert epochs.want("fin", "two", 2.0)
    assert not epochs.want("payload", "three", 3.0)
    assert (epochs.wanted, epochs.wanted_flow) == (["payload", "fin"], "one")


def test_a_reason_before_the_pause_shares_the_checkpoint_and_a_later_one_does_not() -> None:
    epochs = Epochs(Settings(), 0.0)
    epochs.want("payload", "", 0.0)
    epochs.begin(0.0)
    assert epochs.want("fin", "", 1.0)
    assert not epochs.want("fin", "", 1.0)
    assert epochs.running == ["payload", "fin"]
    epochs.pause()
    assert epochs.want("rst", "late", 2.0)
    assert (epochs.running, epochs.wanted) == (["payload", "fin"], ["rst"])
    epochs.commit(3.0)
    assert epochs.due_at() == 3.0


def test_coalescing_starts_with_the_first_reason() -> None:
    epochs = running(Settings(coalesce=2.0))
    epochs.want("payload", "", 10.0)
    epochs.want("fin", "", 11.0)
    assert epochs.due_at() == 12.0


def test_the_first_checkpoint_waits_for_nobody() -> None:
    epochs = Epochs(Settings(coalesce=2.0), 0.0)
    epochs.want("startup", "", 0.0)
    assert epochs.due_at() == 0.0


def test_intervals() -> None:
    epochs = running(Settings(min_interval=3.0, max_interval=9.0))
    assert epochs.due_at() == 9.0
    epochs.want("payload", "", 1.0)
    assert epochs.due_at() == 3.0


def test_before_the_first_commit_there_is_no_period() -> None:
    assert Epochs(Settings(max_interval=9.0), 0.0).due_at() == math.inf


def test_an_abort_wants_again_what_it_ran_for() -> None:
    epochs = running(Settings(retry_interval=0.5))
    epochs.want("payload", "one", 1.0)
    epochs.begin(1.0)
    epochs.pause()
    epochs.want("fin", "two", 2.0)
    epochs.want("payload", "two", 2.0)
    epochs.loaded = True
    epochs.abort(3.0)
    assert (epochs.state, epochs.wanted, epochs.wanted_flow) == (COMPARING, ["payload", "fin"], "one")
    assert (epochs.due_at(), epochs.failures, epochs.loaded, epochs.number) == (3.5, 1, False, 1)
    epochs.begin(3.5)
    epochs.commit(4.0)
    assert epochs.failures == 0


def test_forgetting() -> None:
    epochs = Epochs(Settings(), 0.0)
    epochs.want("payload", "one", 1.0)
    epochs.begin(1.0)
    epochs.abort(1.0)
    epochs.forget()
    assert (epochs.state, epochs.wanted, epochs.wanted_flow, epochs.running) == (COMPARING, [], "", [])
    assert (epochs.failures, epochs.due_at()) == (0, math.inf)
