"""``vmm eval long-video-qa`` under the name that it has in a checkout."""

import sys
from functools import partial

from vmm.evaluation.long_video_qa import command

main = partial(command.main, prog="python -m eval.long_video_qa")

if __name__ == "__main__":
    sys.exit(main())
