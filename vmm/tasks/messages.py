"""Which messages of a training command are shown, and how: vmm's own, once, beside the bars."""

from __future__ import annotations

import logging
import os
import warnings
from typing import Any

from tqdm import tqdm

from vmm import runs
from vmm.data import shards
from vmm.text_output import visible


def configure_messages(command: str) -> None:
    """Show vmm's own messages once, by the first process, and leave out Lightning's tips.

    Args:
        command: ``fit``, or another one.
    """
    handler = BesideBars()
    handler.setFormatter(logging.Formatter("vmm: %(message)s"))
    if command == "fit":  # whose introduction and end say it
        handler.addFilter(SaidOnce())
    root = logging.getLogger("vmm")
    root.handlers = [handler]
    root.setLevel(logging.INFO if os.environ.get("LOCAL_RANK", "0") == "0" else logging.WARNING)
    for library in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(library).setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec|FSDP2-wrapped module .* returned a view")
    warnings.filterwarnings("ignore", message="Found .* module.* in eval mode")  # those of freeze
    warnings.filterwarnings("ignore", message=".*AMP with fp16 is not supported on CPU")
    # vmm keeps the curves and looks itself whether a folder is in use.
    warnings.filterwarnings("ignore", message="(Experiment logs|Checkpoint) directory .* not empty")
    warnings.filterwarnings("ignore", message="The dirpath has changed from")  # to evaluate
    # ``check_monitors`` looks for it before, and the end of a run says that it was never measured.
    warnings.filterwarnings("ignore", message=".* could not find the monitored key")
    # Of several processes: what validation logs is gathered before, and so the same in all.
    warnings.filterwarnings("ignore", message="It is recommended to use `self.log.*sync_dist=True")
    warnings.filterwarnings("ignore", message=".*all_gather_into_tensor. is deprecated")


class BesideBars(logging.StreamHandler[Any]):
    """Writes messages above the bars of a terminal, not into them."""

    def format(self, record: logging.LogRecord) -> str:
        """Make one a text; names of files in it cannot move the cursor."""
        return visible(super().format(record), lines=True)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one."""
        with tqdm.external_write_mode(file=self.stream, nolock=True):
            super().emit(record)


class SaidOnce(logging.Filter):
    """Drops what the introduction and the end of a run say of its data, and repetitions.

    Shards are opened several times: to train, to validate, and once more after the end.
    """

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a message is to be shown."""
        if record.name not in (shards.__name__, runs.__name__):
            return True
        text = record.getMessage()
        new = record.levelno > logging.INFO and record.msg != shards.OPENED
        new = new and text not in self._said
        self._said.add(text)
        return new
