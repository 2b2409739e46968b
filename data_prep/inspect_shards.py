"""``vmm shards inspect`` under the name that it has in a checkout."""

import sys
from functools import partial

from vmm.shards import command

main = partial(command.main_inspect, prog="python -m data_prep.inspect_shards")

if __name__ == "__main__":
    sys.exit(main())
