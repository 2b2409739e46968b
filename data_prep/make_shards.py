"""``vmm shards make`` under the name that it has in a checkout."""

import sys
from functools import partial

from vmm.shards import command

main = partial(command.main_make, prog="python -m data_prep.make_shards")

if __name__ == "__main__":
    sys.exit(main())
