"""`python -m textocvp COMMAND`: every stage of the suite by hand."""

import sys

from textocvp.cli import main

sys.exit(main())
