"""How fast a run is, what it waits for, and what it needs: curves beside those of the losses."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.throughput import get_available_flops
from torch.utils.flop_counter import FlopCounterMode

from vmm.types import VideoTextBatch

_STATM = Path("/proc/self/statm")
_GIB = 2**30


class Throughput(L.Callback):
    """Log what the last steps took, as often as the losses (``trainer.log_every_n_steps``).

    ``speed/step_ms``, ``speed/clips_per_s`` and ``speed/tokens_per_s`` (of text) are of all
    processes together and without validation and saving; ``speed/waiting`` is the share of that
    time spent waiting for data; ``speed/eta_h`` are the hours that are left, with everything.
    ``memory/rss_gib`` is this process, ``memory/cuda_peak_gib`` the most that tensors took.
    ``samples/video`` and the like count samples, by corpus where several have names. Where the
    peak is known, ``speed/utilisation`` is the share of it that matrix products and attention
    use. Processes take equal steps, so the first one's numbers speak for all.

    Args:
        peak_tflops: What one device can do, 10^12 operations per second; null = look its name up.
    """

    def __init__(self, peak_tflops: float | None = None) -> None:
        if peak_tflops is not None and peak_tflops <= 0:
            raise ValueError(f"throughput.peak_tflops is {peak_tflops}; set it above 0")
        self.peak_tflops = peak_tflops
        self._peak: float | None = None
        self._counting: ExitStack | None = None
        self._flops: dict[str, float] = {}
        """Operations of a step of each media type, counted in its first one."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clocks."""
        self._peak = self._find_peak(trainer)
        self._began, self._first_step = time.perf_counter(), trainer.global_step
        self._reset(trainer)

    def _reset(self, trainer: L.Trainer) -> None:
        self._busy = self._done = 0.0
        self._batches = self._clips = 0
        self._waited = _waited(trainer)

    def on_train_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: VideoTextBatch,
        batch_idx: int,
    ) -> None:
        """Look at the clock."""
        if self._peak is not None and batch["media"] not in self._flops:
            self._counting = ExitStack()
            self._counter = self._counting.enter_context(FlopCounterMode(display=False))
        self._started = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: VideoTextBatch,
        batch_idx: int,
    ) -> None:
        """Add up, and log when it is time."""
        self._busy += time.perf_counter() - self._started
        self._batches += 1
        self._clips += len(batch["text"])
        if self._counting is not None:
            self._counting.close()
            self._counting = None
            self._flops[batch["media"]] = float(self._counter.get_total_flops())
        self._done += self._flops.get(batch["media"], 0)
        accumulating = trainer.fit_loop._should_accumulate()
        if not accumulating and trainer._logger_connector.should_update_logs:
            if trainer.is_global_zero:
                step = trainer.fit_loop.epoch_loop._batches_that_stepped
                curves = self._curves(trainer, pl_module, batch)
                for logger in trainer.loggers:
                    logger.log_metrics(curves, step)
            self._reset(trainer)

    def _curves(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: VideoTextBatch
    ) -> dict[str, float]:
        waited = _waited(trainer) - self._waited
        seconds = self._busy + waited
        clips = self._clips * trainer.world_size / seconds
        done = trainer.global_step - self._first_step
        left = max(trainer.estimated_stepping_batches - trainer.global_step, 0)
        curves = {
            "speed/step_ms": 1000 * seconds / self._batches,
            "speed/clips_per_s": clips,
            "speed/waiting": waited / seconds,
            "speed/eta_h": (time.perf_counter() - self._began) / max(done, 1) * left / 3600,
            **_memory(pl_module.device),
        }
        text_encoder = getattr(pl_module.model, "text_encoder", None)
        if text_encoder is not None:  # this batch stands for all since the last time
            tokens = int(text_encoder.tokenize(batch["text"]).attention_mask.sum())
            curves["speed/tokens_per_s"] = clips * tokens / len(batch["text"])
        if self._peak is not None:
            curves["speed/utilisation"] = self._done / seconds / self._peak
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        taken: dict[str, int] = data.samples_taken() if hasattr(data, "samples_taken") else {}
        return curves | {f"samples/{name}": float(count) for name, count in taken.items()}

    def _find_peak(self, trainer: L.Trainer) -> float | None:
        """Operations per second of one device; None if nobody knows."""
        device = trainer.strategy.root_device
        if self.peak_tflops is not None:
            return self.peak_tflops * 1e12
        if device.type != "cuda":
            return None
        kinds = {"bf16": torch.bfloat16, "16": torch.float16}
        return get_available_flops(device, kinds.get(trainer.precision.split("-")[0], torch.float))


def _waited(trainer: L.Trainer) -> float:
    return float(getattr(trainer.train_dataloader, "waited", 0))


def _memory(device: torch.device) -> dict[str, float]:
    memory: dict[str, float] = {}
    if _STATM.exists():
        pages = int(_STATM.read_text().split()[1])
        memory["memory/rss_gib"] = pages * os.sysconf("SC_PAGESIZE") / _GIB
    if device.type == "cuda":
        memory["memory/cuda_peak_gib"] = torch.cuda.max_memory_allocated(device) / _GIB
    return memory
