"""``vmm eval lint`` under the name that it has in a checkout."""

import sys
from functools import partial

from vmm.evaluation.retrieval import lint_command

main = partial(lint_command.main, prog="python -m eval.lint")

if __name__ == "__main__":
    sys.exit(main())
