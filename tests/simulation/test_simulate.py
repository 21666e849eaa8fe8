"""`colo-compare simulate`: seeds on which the rules must hold, and that it finds what breaks them."""

import json
from pathlib import Path

import pytest

from colo_compare.cli import main
from colo_compare.guest.layout import ENTRY_BYTES
from colo_compare.simulate.command import run_many
from colo_compare.simulate.embedded import GEOMETRY, EmbeddedGuest
from colo_compare.simulate.hosts import Guest
from colo_compare.simulate.runs import replay, run, shrink
from colo_compare.simulate.scenario import CRASH_PRIMARY, draw
from colo_compare.simulate.world import World


def test_the_rules_hold() -> None:
    tally = run_many(0, 150, jobs=1, probe=25, most=1)
    assert tally.violations == []
    assert tally.runs == 150
    assert tally.released > 1000
    assert tally.probes > 20
    assert tally.faults[CRASH_PRIMARY] > 20


@pytest.mark.parametrize("seed", [5782, 30028, 43428, 92808, 99838])
def test_what_once_failed(seed: int) -> None:
    """Each was a fault of the proxy's; docs/simulator.md tells which."""
    assert run(draw(seed)).violation == ""


@pytest.mark.parametrize("seed", [3, 17])
def test_the_same_seed_gives_the_same_run(seed: int) -> None:
    once, again = (run(draw(seed), tracing=True) for _ in range(2))
    assert once.trace == again.trace
    assert len(once.trace) > 10


def test_many_processes_count_as_one_does() -> None:
    alone, together = run_many(0, 60, 1, 0, 1), run_many(0, 60, 2, 0, 1)
    assert (alone.runs, alone.faults, alone.released) == (together.runs, together.faults, together.released)


def test_events_can_be_left_out() -> None:
    whole = draw(0)
    assert replay(0, (), calm=False).events == ()
    assert replay(0, (0,), calm=True).events == whole.events[:1]
    assert run(replay(0, (), calm=True)).violation == ""


class _Forgetful(World):
    """A world in which every takeover loses the last answer."""

    def promoted(self) -> None:
        super().promoted()
        if isinstance(self.primary.guest, Guest):
            self.primary.guest.history.index -= 1


def test_a_violation_is_found_shrunk_and_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("colo_compare.simulate.runs.World", _Forgetful)
    assert (
        main(["simulate", "--seeds", "40", "--jobs", "1", "--probe", "0", "--stop-after", "1", "--json"]) == 1
    )
    report = json.loads(capsys.readouterr().out)
    seed = report["violations"][0]["seed"]
    explained = report["explained"][0]
    assert explained["shrunk_violation"]
    shrunk = shrink(seed)
    assert [str(event) for event in shrunk.scenario.events] == explained["events"]
    assert len(shrunk.kept) < len(draw(seed).events) or len(shrunk.kept) <= 2
    assert any(event.kind in (CRASH_PRIMARY, "operator's promotion") for event in shrunk.scenario.events)

    command = explained["command"].split()
    assert command[:2] == ["colo-compare", "simulate"]
    assert main(command[1:]) == 1
    assert "VIOLATION" in capsys.readouterr().out


def test_a_probe_finds_what_no_death_came_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colo_compare.simulate.runs.World", _Forgetful)
    seed = next(
        seed
        for seed in range(100)
        if not {event.kind for event in draw(seed).faults} & {CRASH_PRIMARY, "operator's promotion"}
        and len(draw(seed).events) > 2
    )
    assert run(draw(seed)).violation == ""
    assert "had the primary died" in run(draw(seed), probed=True).violation


EMBEDDED = [seed for seed in range(260) if draw(seed).embedded]


@pytest.mark.parametrize("seed", EMBEDDED)
def test_the_rules_hold_with_embedded_guests(seed: int) -> None:
    result = run(draw(seed))
    assert result.violation == ""


def test_embedded_guests_are_seen_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """A counter that steps back at a takeover."""

    class Amnesiac(World):
        def promoted(self) -> None:
            super().promoted()
            guest = self.primary.guest
            assert isinstance(guest, EmbeddedGuest)
            at = guest.memory.find(b"one", GEOMETRY.entries_at)
            if at > 0:
                start = at - (at - GEOMETRY.entries_at) % ENTRY_BYTES
                guest.memory[start : start + ENTRY_BYTES] = bytes(ENTRY_BYTES)

    monkeypatch.setattr("colo_compare.simulate.runs.World", Amnesiac)
    found = [run(draw(seed)).violation for seed in range(1500) if draw(seed).embedded]
    assert any("counters" in violation or "sums" in violation for violation in found)


def test_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--seeds", "20", "--jobs", "1"]) == 0
    printed = capsys.readouterr().out
    assert "20 runs from seed 0" in printed
    assert "0 violations" in printed
    assert main(["simulate", "--seed", "3"]) == 0
    assert "no violation" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--seeds", "0"], ["--only", "a"]])
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["simulate", *arguments])
    assert ended.value.code == 2
    assert "simulate" in capsys.readouterr().err


def test_it_is_documented() -> None:
    text = Path("docs/simulator.md").read_text()
    for option in ("--seeds", "--first", "--seed", "--trace", "--jobs", "--json", "--probe"):
        assert option in text
