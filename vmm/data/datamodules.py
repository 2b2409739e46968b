"""The datamodules that recipes name."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import lightning as L
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader

import vmm
from vmm.data.decode import DecodeError, Decoder
from vmm.data.index import load_indexes
from vmm.data.order import derive_seed
from vmm.data.patterns import expand_shards
from vmm.data.sampling import Sampling
from vmm.data.shards import BadSamples, EvaluationClips, EvaluationSample, ShardSet
from vmm.data.stream import Positives, TrainLoader, TrainStream, init_worker
from vmm.data.transforms import IMAGENET_MEAN, IMAGENET_STD, ClipSettings, Fit
from vmm.types import Media, VideoTextBatch

_log = logging.getLogger(__name__)

Shards = str | list[str]


class VideoDataModule(L.LightningDataModule):
    """Base of all datamodules; recipes name a subclass.

    Clips have the frames and the size that the encoder being trained expects.

    Args:
        num_frames: Frames per clip; None = the encoder's.
        image_size: Side of the square frames, pixels; None = the encoder's.
    """

    def __init__(self, num_frames: int | None = None, image_size: int | None = None) -> None:
        super().__init__()
        self.num_frames = num_frames
        self.image_size = image_size

    def clip_size(self) -> tuple[int, int]:
        """Return (num_frames, image_size) for the attached encoder.

        Raises:
            ValueError: If a size is given and is not the encoder's.
        """
        return self._size("num_frames"), self._size("image_size")

    def _size(self, name: str) -> int:
        encoder = self.trainer.lightning_module.video_encoder if self.trainer else None
        own: int | None = getattr(self, name)
        expected: int | None = getattr(encoder, name, None)
        size = expected if own is None else own
        if size is None:
            raise ValueError(f"data.{name} is not set and there is no encoder to take it from")
        if expected not in (None, size):
            raise ValueError(
                f"data.{name} is {own} but the encoder's is {expected}; "
                f"remove data.{name} (the encoder's is used) or make them equal"
            )
        return size


class WebVideoData(VideoDataModule):
    """Videos and images with captions, from WebDataset shards (see ``vmm.data.schema``).

    Shards are local tars named by patterns with ``$VARIABLES``, ``{000..007}`` and ``*``.

    Args:
        train_videos: Training shards of videos.
        train_images: Training shards of images; each training batch is all videos or all images.
        val_videos: Validation shards.
        test_videos: Shards for ``vmm test`` and ``vmm predict``.
        batch_size: Videos per step and process, also in evaluation.
        image_batch_size: Images per step and process; None = ``batch_size``.
        num_frames: Frames per clip; None = the encoder's.
        image_size: Side of the square frames, pixels; None = the encoder's.
        steps_per_epoch: Length of an epoch; None = until every sample was used once.
        num_workers: Processes that decode, besides each training process; 0 = none.
        seed: Seed of order and augmentation.
        sampling: Which frames make a clip, see ``vmm.data.sampling``; "random" takes one of each of
            ``num_frames`` equal segments.
        fps: Frames per second of the sampling "fps".
        stride: Frames from one to the next of the sampling "dense".
        crop_scale: Range of the area that a training crop keeps, as a share of the frame.
        flip: Mirror half of the training clips, but none whose caption names a side.
        flip_sided: Mirror also clips whose captions say left or right, as published.
        fit: How evaluation makes frames square: "squash" them, as published, or resize the short
            side and "crop" the centre.
        antialias: Antialias where a frame is made smaller; the published code does not.
        mean: Per channel, of values in [0, 1].
        std: Per channel, of values in [0, 1].
        decoder: What decodes videos; "torchcodec" gives the same frames.
        isolate_decode: Decode in a process of its own that may hang or crash, for data that nobody
            has checked.
        positives: What counts as a positive pair in the contrastive loss: "sample" = its own
            caption, "caption" = also equal captions of other samples. "row" is the published
            choice: the row in its own data set, so that rows of two sets may count by accident.
        quarantine: File that records what cannot be decoded, one JSON line each.
        make_demo: Make the demo shards first if they are missing; for the demo recipes.
    """

    def __init__(
        self,
        train_videos: Shards | None = None,
        train_images: Shards | None = None,
        val_videos: Shards | None = None,
        test_videos: Shards | None = None,
        batch_size: int = 64,
        image_batch_size: int | None = None,
        num_frames: int | None = None,
        image_size: int | None = None,
        steps_per_epoch: int | None = None,
        num_workers: int = 2,
        seed: int = 0,
        sampling: Sampling = "random",
        fps: float | None = None,
        stride: int = 1,
        crop_scale: tuple[float, float] = (0.5, 1.0),
        flip: bool = False,
        flip_sided: bool = False,
        fit: Fit = "squash",
        antialias: bool = True,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
        decoder: Decoder = "pyav",
        isolate_decode: bool = False,
        positives: Positives = "sample",
        quarantine: str | None = None,
        make_demo: bool = False,
    ) -> None:
        super().__init__(num_frames, image_size)
        if min(batch_size, image_batch_size or 1, steps_per_epoch or 1) < 1 or num_workers < 0:
            raise ValueError(
                f"batch_size {batch_size}, image_batch_size {image_batch_size}, steps_per_epoch "
                f"{steps_per_epoch} and num_workers {num_workers}: the first three must be at "
                "least 1 and num_workers at least 0"
            )
        self.train_videos, self.train_images = train_videos, train_images
        self.val_videos, self.test_videos = val_videos, test_videos
        self.batch_size, self.image_batch_size = batch_size, image_batch_size
        self.steps_per_epoch = steps_per_epoch
        self.num_workers = num_workers
        self.seed = seed
        # Frames and size are known when the encoder is: see `clip_settings`.
        self._clip_settings = partial(
            ClipSettings,
            mean=mean,
            std=std,
            sampling=sampling,
            fps=fps,
            stride=stride,
            crop_scale=crop_scale,
            flip=flip,
            flip_sided=flip_sided,
            fit=fit,
            antialias=antialias,
            decoder=decoder,
            isolate_decode=isolate_decode,
        )
        self.positives: Positives = positives
        self.bad = BadSamples(quarantine)
        self.make_demo = make_demo

    def prepare_data(self) -> None:
        """Make missing demo shards, and index all shards once per machine.

        Raises:
            ValueError: If a shard pattern is wrong.
        """
        named = [self.train_videos, self.train_images, self.val_videos, self.test_videos]
        patterns = [pattern for pattern in named if pattern]
        if self.make_demo:
            _make_demo(patterns)
        load_indexes([path for pattern in patterns for path in expand_shards(pattern)])

    def setup(self, stage: str) -> None:
        """Check early that the clips fit the encoder."""
        self.clip_settings()

    def clip_settings(self) -> ClipSettings:
        """Return how videos become network input."""
        num_frames, image_size = self.clip_size()
        return self._clip_settings(num_frames=num_frames, image_size=image_size)

    def train_dataloader(self) -> TrainLoader:
        """Return the training batches, from where the trainer stands."""
        named: dict[Media, Shards | None] = {
            "video": self.train_videos,
            "image": self.train_images,
        }
        sources = {media: ShardSet(shards, media) for media, shards in named.items() if shards}
        if not sources:
            raise ValueError(
                "no training data: set data.init_args.train_videos (or train_images) to a shard "
                "pattern, e.g. 'data/demo/train-*.tar'"
            )
        distributed = dist.is_available() and dist.is_initialized()
        stream = TrainStream(
            sources,
            {"video": self.batch_size, "image": self.image_batch_size or self.batch_size},
            self.clip_settings(),
            seed=self.seed,
            rank=dist.get_rank() if distributed else 0,
            world_size=dist.get_world_size() if distributed else 1,
            steps_per_epoch=self.steps_per_epoch,
            positives=self.positives,
            bad=self.bad,
        )
        return TrainLoader(stream, self.num_workers, self._completed_batches)

    def val_dataloader(self) -> DataLoader[EvaluationSample] | list[object]:
        """Return every validation clip once; fitting without validation data is allowed."""
        fitting = self.trainer is not None and self.trainer.state.fn == "fit"
        if self.val_videos is None and fitting:
            return []
        return self._evaluation_loader("val_videos", keep_unreadable=True)

    def test_dataloader(self) -> DataLoader[EvaluationSample]:
        """Return every test clip once."""
        return self._evaluation_loader("test_videos", keep_unreadable=True)

    def predict_dataloader(self) -> DataLoader[EvaluationSample]:
        """Return every readable test clip once."""
        return self._evaluation_loader("test_videos", keep_unreadable=False)

    def _evaluation_loader(self, name: str, keep_unreadable: bool) -> DataLoader[EvaluationSample]:
        shards: Shards | None = getattr(self, name)
        if shards is None:
            raise ValueError(
                f"data.init_args.{name} is not set; give a shard pattern, "
                "e.g. 'data/demo/test-*.tar'"
            )
        settings = self.clip_settings()
        return DataLoader(
            EvaluationClips(shards, settings, bad=self.bad),
            batch_size=self.batch_size,  # by name: Lightning builds the loader anew in predict
            num_workers=self.num_workers,
            collate_fn=partial(
                collate, settings=settings, positives=self.positives, blank=keep_unreadable
            ),
            pin_memory=torch.cuda.is_available(),
            timeout=600 if self.num_workers else 0,
            worker_init_fn=init_worker,
        )

    def _completed_batches(self) -> int:
        """Count the batches whose optimizer work is done; Lightning saves and restores this."""
        if self.trainer is None:
            return 0
        progress = self.trainer.fit_loop.epoch_loop.batch_progress.state_dict()
        return int(progress["total"]["processed"])


def collate(
    samples: Sequence[EvaluationSample], settings: ClipSettings, positives: Positives, blank: bool
) -> VideoTextBatch:
    """Batch evaluation samples with their first captions.

    Args:
        samples: Of one media type.
        settings: Shape of a blank clip.
        positives: As for training.
        blank: Show an unreadable video as an all-grey one, so that its caption counts as a miss
            and every process has its share; else leave it out.

    Returns:
        The batch.

    Raises:
        DecodeError: If no sample is left.
    """
    kept = [s for s in samples if s.captions and (blank or s.video is not None)]
    if not kept:
        raise DecodeError(
            "unreadable",
            f"none of {', '.join(s.key for s in samples)} can be read; take them out of the "
            "shards, or use a larger batch",
        )
    size = (settings.num_frames, 3, settings.image_size, settings.image_size)
    texts = [s.captions[0] for s in kept]
    idx = (
        [derive_seed(t.lower()) for t in texts]
        if positives == "caption"
        else [s.number for s in kept]
    )
    return {
        "video": torch.stack([torch.zeros(size) if s.video is None else s.video for s in kept]),
        "text": texts,
        "idx": torch.tensor(idx, dtype=torch.int64),
        "key": [s.key for s in kept],
        "media": "video",
    }


def _make_demo(patterns: list[Shards]) -> None:
    """Run ``data_prep.synthesize`` if the shards of the demo are not there."""
    flat = [p for pattern in patterns for p in ([pattern] if isinstance(pattern, str) else pattern)]
    folders = {os.path.dirname(pattern) for pattern in flat}
    if len(folders) != 1:
        raise ValueError(
            f"make_demo needs all shard patterns in one folder, not in {sorted(folders)}; "
            "set data.init_args.make_demo=false for your own shards"
        )
    folder = folders.pop()
    if os.path.exists(os.path.join(folder, "manifest.json")):
        return
    checkout = Path(vmm.__file__).parent.parent
    if not (checkout / "data_prep" / "synthesize.py").is_file():
        raise ValueError(
            f"the demo shards in {folder!r} are missing, and the script that makes them comes with "
            "the source checkout only; clone the repository, or set make_demo to false and name "
            "shards of your own"
        )
    _log.warning("making the demo shards in %s: once, about half a minute", folder)
    search = os.pathsep.join(filter(None, [str(checkout), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "data_prep.synthesize", "--out", folder]
    result = subprocess.run(command, env={**os.environ, "PYTHONPATH": search}, check=False)
    if result.returncode:
        raise ValueError(
            f"`{' '.join(command[1:])}` failed with exit code {result.returncode}; see above"
        )
