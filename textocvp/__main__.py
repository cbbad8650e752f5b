"""`python -m textocvp COMMAND`: every stage of the suite by hand."""

import sys

from textocvp.files import missing_package

try:
    from textocvp.cli import main
except ModuleNotFoundError as error:
    print(f"error: {missing_package(error)}", file=sys.stderr)
    sys.exit(2)

sys.exit(main())
