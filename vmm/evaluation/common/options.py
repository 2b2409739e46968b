"""What every evaluation is told, and the model that it opens for that."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from vmm.data.patterns import expand_shards
from vmm.evaluation.common.models import Encoder, VmmEncoder, load_encoder
from vmm.ops.tuning.cpu_setup import tune_cpu
from vmm.runs import load_run

Coverage = Literal["strict", "available"]
"""What cannot be read counts as a miss ("strict"), or is dropped with all that is asked of it."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every evaluation is told.

    Args:
        run: Run directory of ``vmm fit``, or what ``vmm import`` wrote.
        checkpoint: Of the run: "best", "last" or a path.
        device: Where to compute: "cpu", "cuda" or "cuda:NUMBER".
        out: Folder for the results; None = in the run, or below ``runs``.
        name: Of the result; None = the encoder's.
        coverage: See ``Coverage``.
        shards: Pattern of the test shards; or
        dataset: a published test set, by its name, with
        annotations: its official file (or a folder that holds a folder of each class) and
        media: a folder of its media, or its shards; None = the folder of the annotations.
    """

    run: Path | None = None
    checkpoint: str = "best"
    device: str = "cpu"
    out: Path | None = None
    name: str | None = None
    coverage: Coverage = "strict"
    shards: str | None = None
    dataset: str | None = None
    annotations: Path | None = None
    media: str | None = None

    def folder(self, name: str, model: str) -> Path:
        """Make the folder for the results: ``out``, or ``name`` in the run or below ``runs``."""
        words = "".join(c if c.isalnum() else "-" for c in model)
        out = self.out or (self.run or Path("runs") / words) / name
        out.mkdir(parents=True, exist_ok=True)
        return out

    def prepare(self) -> None:
        """Try the device, the shards and the folder, before a model is loaded.

        Raises:
            ValueError: If one cannot be used.
        """
        try:
            wanted = torch.device(self.device)
            if wanted.type != "cuda":
                torch.zeros(1, device=wanted).item()
            elif (wanted.index or 0) >= torch.cuda.device_count():  # a trial would cost GPU memory
                raise RuntimeError(f"torch sees {torch.cuda.device_count()} GPUs")
        except (RuntimeError, AssertionError) as error:
            reason = str(error).partition("\n")[0][:120]
            raise ValueError(
                f"--device {self.device!r} cannot be used here ({reason}); give cpu, cuda or "
                "cuda:NUMBER"
            ) from error
        if self.shards is not None:
            expand_shards(self.shards)
        if self.out is not None and self.out.is_file():
            raise ValueError(f"--out {self.out} is a file; name a folder")
        if wanted.type == "cpu":
            tune_cpu()  # `vmm doctor` says what this is

    def given_run(self) -> Path:
        """Give the run.

        Raises:
            ValueError: If there is none.
        """
        if self.run is None:
            raise ValueError("give the run directory of a trained model")
        return self.run

    def given_shards(self) -> str:
        """Give the pattern of the shards.

        Raises:
            ValueError: If there is none.
        """
        if self.shards is None:
            raise ValueError("give shards, or a data set with its annotations and its media")
        return self.shards

    def official(self) -> tuple[Path, str]:
        """Give annotations and media.

        Raises:
            ValueError: If one is missing.
        """
        if self.annotations is None or (self.media is None and not self.annotations.is_dir()):
            raise ValueError(f"the data set {self.dataset} needs its annotations and its media")
        return self.annotations, self.media or str(self.annotations)

    def files(self) -> list[str]:
        """Name the files that the test set comes from, without their folders."""
        files = (self.shards,) if self.dataset is None else (self.annotations, self.media)
        return [Path(file).name for file in files if file is not None]


@dataclass(frozen=True, kw_only=True)
class ModelOptions(Options):
    """What evaluations of any video-text model are told.

    Args:
        model: Instead of a run: what ``load_encoder`` takes, or an ``Encoder``.
        num_frames: Frames per clip; None = as trained, or 8.
        trust_remote_code: Run code that comes with the model.
    """

    model: str | Encoder | None = None
    num_frames: int | None = None
    trust_remote_code: bool = False

    def open_encoder(self) -> Encoder:
        """Load the model.

        Raises:
            ValueError: If it cannot be loaded, or it is not one.
        """
        if isinstance(self.model, str):
            return load_encoder(self.model, self.num_frames, self.device, self.trust_remote_code)
        if self.model is not None:
            return self.model
        run = load_run(self.given_run(), self.checkpoint)
        return VmmEncoder.of_run(run, self.device, run.clip.with_frames(self.num_frames))
