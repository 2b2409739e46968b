"""Walk through all pages in one process, as ``python -m tests.docs.walk ROOT`` in an empty folder.

Prints what it runs. A command that stood on an earlier page is not run again.
"""

import sys
from pathlib import Path

from tests.docs.snippets import all_blocks, run_python, small
from vmm.cli import main

if __name__ == "__main__":
    done, spaces = set(), {}
    for block in all_blocks(Path(sys.argv[1])):
        if block.mark:
            continue
        if block.kind == "python":
            print(f"{block.page}: Python", flush=True)
            run_python(block.text, spaces.setdefault(block.page, {}))
        for command in block.commands if block.kind == "sh" else ():
            if command in done:
                continue
            print(f"{block.page}: {command}", flush=True)
            done.add(command)
            try:
                status = main(small(command))
            except SystemExit as stop:
                status = stop.code
            if status:
                sys.exit(f"{block.page}: status {status} of: {command}")
    print(f"ran {len(done)} commands")
