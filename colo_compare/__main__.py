"""``python -m colo_compare`` is the command ``colo-compare``."""

import sys

from colo_compare.cli import main

if __name__ == "__main__":
    sys.exit(main())
