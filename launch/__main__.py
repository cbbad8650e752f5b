"""`python -m launch COMMAND`."""

import sys

try:
    from launch.cli import main
except ModuleNotFoundError as error:
    advice = "use .venv/bin/python, which `make setup` creates, or the script textocvp-launch"
    print(f"error: {sys.executable} lacks the suite's packages ({error}); {advice}", file=sys.stderr)
    sys.exit(2)

sys.exit(main())
