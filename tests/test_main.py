import subprocess
import sys

from colo_compare import __version__
from colo_compare.build import is_compiled


def test_the_package_is_a_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "colo_compare", "--version"], capture_output=True, text=True, check=False
    )
    kind = "compiled" if is_compiled() else "plain Python"
    assert (done.returncode, done.stdout) == (0, f"colo-compare {__version__} ({kind})\n")
