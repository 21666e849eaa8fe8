from colo_compare.core import counters
from colo_compare.core.counters import Counters


def test_all_reasons_are_there_before_they_happen() -> None:
    fresh = Counters()
    assert fresh.released == dict.fromkeys(counters.RELEASES, 0)
    assert fresh.discarded == dict.fromkeys(counters.PRIMARY_DISCARDS, 0)
    assert fresh.secondary == dict.fromkeys(counters.SECONDARY_FATES, 0)
    assert fresh.client_discarded == dict.fromkeys(counters.CLIENT_DISCARDS, 0)
    assert fresh.requests == fresh.divergences == dict.fromkeys(counters.REQUEST_REASONS, 0)
    assert fresh.checkpoints == {"committed": 0, "failed": 0, "timed_out": 0}


def test_no_reason_stands_for_two() -> None:
    for names in (
        counters.RELEASES,
        counters.PRIMARY_DISCARDS,
        counters.SECONDARY_FATES,
        counters.CLIENT_DISCARDS,
        counters.REQUEST_REASONS,
    ):
        assert len(set(names)) == len(names)


def test_totals() -> None:
    fresh = Counters()
    assert (fresh.released_total(), fresh.discarded_total()) == (0, 0)
    fresh.released[counters.MATCHED] += 2
    fresh.released[counters.COVERED] += 3
    fresh.discarded[counters.FAILOVER] += 4
    assert (fresh.released_total(), fresh.discarded_total()) == (5, 4)


def test_a_snapshot_names_everything_and_stays_as_it_is() -> None:
    fresh = Counters()
    fresh.received[1] = 7
    fresh.hold_time.observe(0.5)
    shot = fresh.snapshot()
    fresh.received[1] = 8
    fresh.released[counters.MATCHED] += 1
    assert shot["received"] == {"client": 0, "primary": 7, "secondary": 0}
    assert shot["released"] == dict.fromkeys(counters.RELEASES, 0)
    assert (shot["held_seconds"], shot["held_releases"]) == (0.5, 1)
    numbers = {name for name in dir(fresh) if isinstance(getattr(fresh, name), int)}
    assert numbers <= set(shot)
