"""``vmm eval mteb`` under the name that it has in a checkout."""

import sys
from functools import partial

from vmm.evaluation.leaderboards import mteb_command

main = partial(mteb_command.main, prog="python -m eval.mteb")

if __name__ == "__main__":
    sys.exit(main())
