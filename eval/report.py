"""``vmm eval report`` under the name that it has in a checkout."""

import sys
from functools import partial

from vmm.evaluation.retrieval import report_command

main = partial(report_command.main, prog="python -m eval.report")

if __name__ == "__main__":
    sys.exit(main())
