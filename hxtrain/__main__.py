"""`python -m hxtrain`: the command, also where no script is on the path."""

from __future__ import annotations

import sys

from hxtrain.experiments.main import main
from hxtrain.experiments.verbs import PROGRAM

if __name__ == "__main__":
    sys.argv[0] = PROGRAM
    sys.exit(main())
