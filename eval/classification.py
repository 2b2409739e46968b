"""``vmm eval classification`` under the name that it has in a checkout."""

import sys
from functools import partial

from vmm.evaluation.classification import command

main = partial(command.main, prog="python -m eval.classification")

if __name__ == "__main__":
    sys.exit(main())
