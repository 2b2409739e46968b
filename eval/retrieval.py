"""``vmm eval retrieval`` under the name that it has in a checkout."""

import sys
from functools import partial

from vmm.evaluation.retrieval import command

main = partial(command.main, prog="python -m eval.retrieval")

if __name__ == "__main__":
    sys.exit(main())
