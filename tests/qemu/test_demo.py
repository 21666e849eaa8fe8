"""The demonstration, from beginning to end."""

import subprocess
import sys
import tempfile
from pathlib import Path

from colo_compare.demo.qemu.image import Image

LIMIT = 240.0  # seconds


def directories() -> set[str]:
    return {path.name for path in Path(tempfile.gettempdir()).glob("colo-qemu-*")}


def test_everything_that_it_shows_holds_and_nothing_stays_behind(guest_image: Image) -> None:
    before = directories()
    argv = [sys.executable, "-m", "colo_compare", "demo", "--vmm", "qemu", "--size", "4MiB"]

    demo = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=LIMIT)

    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "Everything held." in demo.stdout
    assert "protected again" in demo.stdout
    assert directories() <= before
