"""What was installed: wire/ and core/ as machine code, or as plain Python."""

from pathlib import Path
from typing import Final

from colo_compare import __version__
from colo_compare.wire import seq

PLAIN_NOTICE: Final = (
    "wire and core run as plain Python, several times slower than compiled: install again with a C compiler"
)


def is_compiled() -> bool:
    """Say whether the core runs as machine code, or from its sources."""
    return Path(seq.__file__).suffix != ".py"


def describe_build() -> str:
    """Give version and kind: ``0.1.0 (compiled)``, ``0.1.0 (plain Python)``."""
    return f"{__version__} ({'compiled' if is_compiled() else 'plain Python'})"
