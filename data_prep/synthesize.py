"""``vmm shards demo`` under the name that it has in a checkout."""

import sys
from functools import partial

from vmm.shards.demo import synthesize

main = partial(synthesize.main, prog="python -m data_prep.synthesize")

if __name__ == "__main__":
    sys.exit(main())
