"""`python -m mafr.cli`: the same as the script `mafr`."""

import sys

from mafr.cli import main

sys.exit(main())
