"""A callback that tells a test which process trains."""

import os
from pathlib import Path

import lightning as L


class WritePid(L.Callback):
    """Write ``pid-RANK`` into the folder PID_FOLDER after three steps."""

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 3:
            folder = Path(os.environ["PID_FOLDER"])
            (folder / "pid").with_suffix(f".{trainer.global_rank}").write_text(str(os.getpid()))
            (folder / f"pid.{trainer.global_rank}").rename(folder / f"pid-{trainer.global_rank}")
