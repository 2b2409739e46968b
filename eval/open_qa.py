"""``vmm eval open-qa`` under the name that it has in a checkout."""

import sys
from functools import partial

from vmm.evaluation.open_qa import command

main = partial(command.main, prog="python -m eval.open_qa")

if __name__ == "__main__":
    sys.exit(main())
