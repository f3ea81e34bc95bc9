"""`python -m sluice`, and the command `sluice`."""

import sys

from sluice.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
