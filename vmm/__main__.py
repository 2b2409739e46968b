"""The command ``vmm``, and ``python -m vmm``: what Ctrl-C does comes before all else."""

import sys


def main() -> int:
    """Run one command; see ``vmm.cli.main``."""
    try:
        from vmm.ctrl_c import STOPPED, end_at_once, leave

        end_at_once()
        from vmm.cli import main as run
    except KeyboardInterrupt:  # in the first of these milliseconds
        sys.stderr.write("\nvmm: stopped by Ctrl-C\n")
        return 130
    status = run()
    if status == STOPPED:
        leave(status)
    return status


if __name__ == "__main__":
    sys.exit(main())
