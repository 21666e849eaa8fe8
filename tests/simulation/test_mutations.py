"""The simulator finds faults that are put into the core on purpose: see `tests.simulation.mutations`.

Where one of these fails because the core is another one now, look whether the mutation still makes a fault of
it, and let ``python -m tests.simulation.mutations NAME`` look for the first seed anew.
"""

from pathlib import Path

import pytest

from colo_compare.simulate.runs import run
from colo_compare.simulate.scenario import draw
from tests.simulation.mutations import MUTATIONS, PACKAGE, Mutation, look_for

FIRST_SEEDS = {
    "frames go before the first commit": 41,
}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_it_is_found(mutation: Mutation) -> None:
    seed = FIRST_SEEDS[mutation.name]
    assert look_for(mutation, seed, 1) is not None
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
