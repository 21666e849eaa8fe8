import subprocess
import sys

from colo_compare import __version__


def test_the_package_is_a_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "colo_compare", "--version"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"colo-compare {__version__}\n")
