"""The demonstration, from beginning to end."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from colo_compare.demo.qemu.image import Image

LIMIT = 240.0  # seconds


def test_everything_that_it_shows_holds_and_nothing_stays_behind(guest_image: Image) -> None:
    argv = [sys.executable, "-m", "colo_compare", "demo", "--vmm", "qemu", "--size", "4MiB"]

    # Not the test's own directory: its name is too long for the sockets in it.
    with tempfile.TemporaryDirectory() as directory:
        environment = os.environ | {"TMPDIR": directory}
        demo = subprocess.run(
            argv, capture_output=True, text=True, check=False, timeout=LIMIT, env=environment
        )
        left = list(Path(directory).iterdir())

    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "Everything held." in demo.stdout
    assert "protected again" in demo.stdout
    assert left == []
