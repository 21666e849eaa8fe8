"""``python -m tap_setup`` is ``colo-tap-setup``."""

import sys

from tap_setup.cli import main

sys.exit(main())
