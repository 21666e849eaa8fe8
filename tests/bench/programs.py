"""The small C programs of the bench, compiled when they are first needed."""

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

_HERE = Path(__file__).parent
_DIRECTORY = tempfile.TemporaryDirectory(prefix="colo-bench-")


def missing() -> str:
    """Say why they cannot be compiled, nothing if they can."""
    return "" if shutil.which("cc") else "there is no C compiler (Debian: build-essential)"


@functools.cache
def program(name: str) -> str:
    """Give the path of tests/bench/NAME.c, compiled. Raises CalledProcessError."""
    path = f"{_DIRECTORY.name}/{name}"
    subprocess.run(["cc", "-O2", "-Wall", "-Werror", "-o", path, _HERE / f"{name}.c"], check=True)
    return path
