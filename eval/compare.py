"""``vmm eval compare`` under the name that it has in a checkout."""

import sys
from functools import partial

from vmm.evaluation.retrieval import compare_command

main = partial(compare_command.main, prog="python -m eval.compare")

if __name__ == "__main__":
    sys.exit(main())
