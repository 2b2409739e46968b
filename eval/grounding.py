"""``vmm eval grounding`` under the name that it has in a checkout."""

import sys
from functools import partial

from vmm.evaluation.grounding import command

main = partial(command.main, prog="python -m eval.grounding")

if __name__ == "__main__":
    sys.exit(main())
