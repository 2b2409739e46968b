"""Callbacks that tests put into runs of several processes."""

import hashlib
import json
import os
import signal
import time
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


class SlowEnd(L.Callback):
    """Let a run's page take two seconds, and Lightning look at the processes meanwhile."""

    def __init__(self):
        from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver

        from vmm import after_fit

        write_page = after_fit.write_page
        after_fit.write_page = lambda run: time.sleep(2) or write_page(run)
        assert _ChildProcessObserver.__init__.__defaults__ == (5,)
        _ChildProcessObserver.__init__.__defaults__ = (0.5,)


class EndOne(L.Callback):
    """End process 1 in step 3, without a word, while process 0 does something that takes long."""

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 3:
            time.sleep(1)  # the pids are being read
            if trainer.global_rank == 1:
                os._exit(7)
            time.sleep(40)


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


class NoteGradients(L.Callback):
    """Write the losses and whole gradients of all steps into ``gradients.pt`` of NOTES.

    Of the last of three steps the last sample is left out: on the last process, or in the batch of
    a single one.
    Negatives are the neighbours among the GROUP samples that a process of two would have.
    """

    def __init__(self):
        self.steps = []

    def on_fit_start(self, trainer, pl_module):
        pl_module._negatives = self.neighbours

    def neighbours(self, video, text, batch):
        from vmm.losses.matching import HardNegatives

        group = int(os.environ["GROUP"])
        rows = torch.arange(len(video))
        start = rows - rows % group
        partner = start + (rows - start + 1) % (torch.clamp(len(rows) - start, max=group))
        return HardNegatives(partner, partner, batch["idx"] != batch["idx"][partner])

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 2 and trainer.global_rank == trainer.world_size - 1:
            for name in ("video", "text", "idx", "key"):
                batch[name] = batch[name][:-1]

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.steps.append({name: whole(p) for name, p in pl_module.named_parameters()})

    def on_train_batch_end(self, trainer, pl_module, *_):
        losses = {k: v for k, v in trainer.callback_metrics.items() if k.startswith("train/")}
        losses = {
            k: trainer.strategy.reduce(v.clone(), reduce_op="mean") for k, v in losses.items()
        }
        if trainer.is_global_zero:
            self.steps[-1] |= losses
            torch.save(self.steps, Path(os.environ["NOTES"]) / "gradients.pt")
        trainer.save_checkpoint(Path(os.environ["NOTES"]) / f"{trainer.global_step}.ckpt")


def whole(parameter):
    """The gradient of a parameter, put together from all processes; None if there is none."""
    from torch.distributed.tensor import DTensor

    if hasattr(parameter, "ds_id") or hasattr(parameter, "_hp_mapping"):
        from deepspeed.utils import safe_get_full_grad

        return safe_get_full_grad(parameter).clone() if parameter.requires_grad else None
    gradient = parameter.grad
    if isinstance(gradient, DTensor):
        gradient = gradient.full_tensor()
    return None if gradient is None else gradient.clone()


class SpoilThenSignal(L.Callback):
    """Make the loss of process 1 NaN in step 1, gradients of process 0 in step 2; after 4, SIGTERM.

    Gradients are spoilt while they are computed: afterwards a strategy may keep them anywhere.
    """

    def on_fit_start(self, trainer, pl_module):
        inner = pl_module.compute_losses

        def spoiled(batch):
            losses = inner(batch)
            due = trainer.global_step == 1 and trainer.global_rank == 1
            return losses._replace(total=losses.total * torch.nan) if due else losses

        def spoil_gradient(module, inputs, output):
            due = trainer.global_step == 2 and trainer.global_rank == 0
            if due and output.requires_grad:
                output.register_hook(lambda gradient: gradient * torch.nan)

        pl_module.compute_losses = spoiled
        pl_module.model.vision_proj.register_forward_hook(spoil_gradient)

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 4 and trainer.global_rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
