"""Callbacks that tests put into runs of several processes."""

import hashlib
import json
import os
from pathlib import Path

import lightning as L
import torch


class WritePid(L.Callback):
    """Write ``pid-RANK`` into the folder PID_FOLDER after three steps."""

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 3:
            folder = Path(os.environ["PID_FOLDER"])
            (folder / "pid").with_suffix(f".{trainer.global_rank}").write_text(str(os.getpid()))
            (folder / f"pid.{trainer.global_rank}").rename(folder / f"pid-{trainer.global_rank}")


class SpoilGradient(L.Callback):
    """Make a gradient of one process NaN, once the processes have exchanged them."""

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if trainer.global_step == 1 and trainer.global_rank == 1:
            next(p for p in pl_module.parameters() if p.grad is not None).grad.fill_(torch.nan)


class NoteDraws(L.Callback):
    """Write a line for every sample into ``draws-RANK`` of the run: its step, key and draws."""

    def on_fit_start(self, trainer, pl_module):
        draw_mask, mask_words = pl_module.draw_mask, pl_module._mask_words
        path = Path(trainer.log_dir, f"draws-{trainer.global_rank}")

        def note(what, keys, rows):
            step = trainer.fit_loop.epoch_loop.batch_progress.total.processed
            with path.open("a") as file:
                for key, row in zip(keys, rows, strict=True):
                    digest = hashlib.blake2b(repr(row).encode(), digest_size=8).hexdigest()
                    file.write(json.dumps([step, what, key, digest]) + "\n")

        def noted_mask(batch, attention):
            dropped = draw_mask(batch, attention)
            note("mask", batch["key"], dropped.tolist())
            return dropped

        def noted_words(tokens, keys):
            masked = mask_words(tokens, keys)
            real = tokens.attention_mask.sum(1).tolist()
            rows = [row[:n] for row, n in zip(masked.input_ids.tolist(), real, strict=True)]
            note("words", keys, rows)
            return masked

        pl_module.draw_mask, pl_module._mask_words = noted_mask, noted_words
