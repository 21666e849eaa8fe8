import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from colo_compare.checkpoint.command import SECONDARY_INTACT
from colo_compare.demo.checkpoint_desk import CheckpointDesk
from colo_compare.errors import CheckpointerError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("answer", "status"), [(CheckpointDesk.commit, 0), (CheckpointDesk.refuse, SECONDARY_INTACT)]
)
def test_a_request_waits_for_its_answer(
    tmp_path: Path, answer: Callable[[CheckpointDesk], None], status: int
) -> None:
    request = {"event": "checkpoint", "epoch": 3}
    with CheckpointDesk(tmp_path / "desk.sock") as desk:
        program = subprocess.Popen(
            desk.command(), stdin=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}
        )
        assert program.stdin is not None
        program.stdin.write(json.dumps(request).encode() + b"\n")
        program.stdin.close()

        assert desk.next(10) == request
        assert program.poll() is None
        answer(desk)

        assert program.wait(10) == status


def test_no_request_is_an_error(tmp_path: Path) -> None:
    with (
        CheckpointDesk(tmp_path / "desk.sock") as desk,
        pytest.raises(CheckpointerError, match="no checkpoint"),
    ):
        desk.next(0)
