"""``vmm eval probe`` under the name that it has in a checkout."""

import sys
from functools import partial

from vmm.evaluation.probe import command

main = partial(command.main, prog="python -m eval.probe")

if __name__ == "__main__":
    sys.exit(main())
