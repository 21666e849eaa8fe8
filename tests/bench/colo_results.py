"""Everything that was measured, in memory and as JSON: the one can be made of the other."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.colo_forms import FORMS, Alone, Form
from tests.bench.colo_measure import Cell, Failovers
from tests.bench.colo_workloads import WORKLOADS, Workload

Cells = Mapping[Workload, Mapping[type[Form], Cell]]
AllFailovers = Mapping[type[Form], Failovers]


@dataclass
class Results:
    """The conditions, one cell for each workload on each form, and the failovers of the pairs."""

    about: dict[str, Any] = field(default_factory=dict)
    cells: Cells = field(default_factory=lambda: {w: {form: Cell() for form in FORMS} for w in WORKLOADS})
    failovers: AllFailovers = field(
        default_factory=lambda: {form: Failovers() for form in FORMS if form is not Alone}
    )


def write_json(results: Results, path: Path) -> None:
    """Write everything, or leave what was there. Raises OSError."""
    written: dict[str, Any] = {"about": results.about, "workloads": {}, "failovers": {}}
    for workload, forms in results.cells.items():
        written["workloads"][workload.name] = {
            form.name: {**vars(cell), "holds": {str(bound): n for bound, n in cell.holds.items()}}
            for form, cell in forms.items()
        }
    for form, seen in results.failovers.items():
        written["failovers"][form.name] = vars(seen)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(written, indent=1) + "\n")
    part.replace(path)


def read_json(path: Path) -> Results:
    """Give what `write_json` wrote; what is missing there is empty. Raises OSError and ValueError."""
    written = json.loads(path.read_text())
    results = Results(written.get("about", {}))
    for workload, forms in results.cells.items():
        found = written.get("workloads", {}).get(workload.name, {})
        for form, cell in forms.items():
            vars(cell).update(found.get(form.name, {}))
            cell.requests = Counter(cell.requests)
            cell.holds = Counter({float(bound): count for bound, count in cell.holds.items()})
    for form, seen in results.failovers.items():
        vars(seen).update(written.get("failovers", {}).get(form.name, {}))
    return results
