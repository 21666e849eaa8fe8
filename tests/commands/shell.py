"""Commands run against a daemon of the same process."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from colo_compare import cli
from tests.daemon_rig import Rig


class Shell:
    """Runs commands against a daemon."""

    def __init__(self, rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
        self.rig = rig
        self._capsys = capsys
        self.code = -1

    async def run(self, *argv: str) -> str:
        """Give what a command prints; `code` is its exit code then."""
        await wait_all_tasks_blocked()
        whole = [argv[0], "--socket", self.rig.config.control.socket, *argv[1:]]
        self.code = await trio.to_thread.run_sync(cli.main, whole)
        captured = self._capsys.readouterr()
        return captured.out or captured.err
