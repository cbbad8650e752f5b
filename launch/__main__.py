"""`python -m launch COMMAND`."""

from __future__ import annotations

import sys

from launch.cli import main

sys.exit(main())
