"""The simulator finds faults that are put into the core on purpose: see `tests.simulation.mutations`.

Where one of these fails because the core is another one now, look whether the mutation still makes a fault of
it, and let ``python -m tests.simulation.mutations NAME`` look for the first seed anew.
"""

from pathlib import Path

import pytest

from colo_compare.simulate.runs import run
from colo_compare.simulate.scenario import draw
from tests.simulation.mutations import MUTATIONS, PACKAGE, Mutation, look_for

ENOUGH = 400  # seeds, where a core that has changed makes another one the first
FIRST_SEEDS = {
    "frames go before the first commit": 41,
    "datagrams go before the first commit": 235,
    "payload is not compared": 8,
    "what lies beyond a hole is not compared": 122,
    "no gate for acknowledgements": 0,
    "a FIN is not compared": 3,
    "a reset goes by itself": 26,
    "no clamp of the window": 20,
    "timestamps are not lifted": 87,
    "a commit leaves the old sequence offset": 9,
    "a commit leaves the old timestamp offset": 306,
    "a commit leaves the comparison behind": 9,
    "the old secondary's words survive a load": 32,
    "the old secondary's datagrams survive a commit": 22,
    "what the primary sent after its pause counts as before": 4,
    "nobody reports the pause, and it is waited for": 1732,
    "the client's frames do not wait for a commit": 1,
    "a commit mirrors nothing again": 28,
    "a full queue drops": 56,
    "a full queue is read on": 90,
    "a divergence asks for nothing": 9,
    "nothing stands still for want of a secondary": 2,
    "a dead primary's held frames go out": 30,
    "a promotion flushes nothing": 17,
    "a promoted guest loses its sequence offset": 7,
    "a promoted guest loses its timestamp offset": 30,
    "acknowledgements are not translated": 3,
    "SACK blocks are not translated": 8,
    "an echo in the handshake is only shifted": 144,
}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_it_is_found(mutation: Mutation) -> None:
    seed = FIRST_SEEDS[mutation.name]
    assert look_for(mutation, seed, 1) or look_for(mutation, 0, ENOUGH)
    assert run(draw(seed)).violation == "", "without the fault the same run is clean"


def test_each_is_in_the_documentation() -> None:
    rows = Path("docs/simulator.md").read_text().splitlines()
    for mutation in MUTATIONS:
        seeds = FIRST_SEEDS[mutation.name] + 1
        assert [row for row in rows if row.startswith(f"| {mutation.name} | {mutation.file} | {seeds} |")]


def test_a_text_that_is_not_there_is_no_mutation(tmp_path: Path) -> None:
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "pair.py").write_text("once, once\n")
    for text in ("never", "once"):
        with pytest.raises(LookupError, match=text):
            Mutation("none", "pair.py", text, "").apply(tmp_path)


def test_the_package_itself_is_not_touched() -> None:
    before = (PACKAGE / "core" / MUTATIONS[0].file).read_text()
    look_for(MUTATIONS[0], 0, 1)
    assert (PACKAGE / "core" / MUTATIONS[0].file).read_text() == before
