"""``vmm eval match-weight`` under the name that it has in a checkout."""

import sys
from functools import partial

from vmm.evaluation.retrieval import match_weight_command

main = partial(match_weight_command.main, prog="python -m eval.match_weight")

if __name__ == "__main__":
    sys.exit(main())
