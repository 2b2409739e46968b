"""The datamodules that recipes name."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader

from vmm.data.collate import Content, Positives, collate, content_of, normalised
from vmm.data.corpora import Mixture, Shards, open_corpora, patterns_of, refuse_empty, warn_of_leak
from vmm.data.decode import Decoder
from vmm.data.faults import BadSamples
from vmm.data.index_files import index_shards
from vmm.data.loader import TrainLoader, init_worker, refuse_counts
from vmm.data.patterns import expand_shards, is_remote
from vmm.data.position import go_back, next_step, stepped_batches
from vmm.data.resampled import ResampledStream
from vmm.data.sampling import Sampling
from vmm.data.shards import EvaluationClips, EvaluationSample
from vmm.data.stream import OnBad, TrainStream, refuse_other_data, refuse_unequal_data
from vmm.data.transforms import IMAGENET_MEAN, IMAGENET_STD, ClipSettings, Fit, Interpolation
from vmm.data.views import Views
from vmm.distributed import rank, world_size
from vmm.types import Media, VideoTextBatch

_SHARDS = [f"{part}_{media}" for part in ("train", "val", "test") for media in ("videos", "images")]


def run_folder(trainer: L.Trainer) -> Path | None:
    """Return where a run keeps its files; a ``fast_dev_run`` keeps none."""
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return None
    return Path(trainer.log_dir or trainer.default_root_dir)


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

    Shards are local tars named by patterns with ``$VARIABLES``, ``{000..007}`` and ``*``, or by
    their folder. Several corpora go by name, each with its ``shards`` and a ``weight``: the passes
    over it during one pass over the mixture. Training shards may also be URLs (``s3://``,
    ``gs://``, ``https://``) and ``pipe:`` commands: then shards are drawn with replacement, and
    the run is not exactly resumable.

    Args:
        train_videos: Training shards of videos, or several corpora.
        train_images: The same of images; each training batch is all videos or all images, in
            proportion to their (weighted) sizes.
        val_videos: Validation shards of videos.
        val_images: Validation shards of images, in the place of videos.
        test_videos: Shards for ``vmm test`` and ``vmm predict``.
        test_images: The same of images, in the place of videos.
        test_views: Clips and crops of each sample that ``vmm test`` of a classifier shows, as
            published e.g. {clips: 4, crops: 3}.
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
        auto_augment: Operations on whole frames in training, alike for all of a clip, in timm's
            notation: "rand-m7-n4-mstd0.5-inc1", or "v0"; see ``vmm.data.auto_augment``.
        crop_scale: Range of the area that a training crop keeps, as a share of the frame.
        flip: Mirror half of the training clips, but none whose caption names a side.
        flip_sided: Mirror also clips whose captions say left or right, as published.
        random_erasing: Share of the training clips of which a box is replaced by noise.
        aug_repeats: How often a sample that was read once is augmented; all copies are in the batch
            side by side, which then has as many times ``batch_size`` rows. Each draws one of the
            sample's captions; with ``positives`` sample they are positives of each other.
        sampler_repeats: How often each sample is read and augmented in a row, each time for another
            process, as repeated augmentation of images is published; batches keep their size.
        fit: How evaluation makes frames square: "squash" them, as published, or resize the short
            side and "crop" the centre.
        crop_pct: Share of the short side that the fit "crop" keeps.
        interpolation: How frames are resized, in training and evaluation.
        antialias: Antialias where a frame is made smaller; the published code does not.
        mean: Per channel, of values in [0, 1].
        std: Per channel, of values in [0, 1].
        decoder: What decodes videos; "torchcodec" gives the same frames.
        isolate_decode: Decode in a process of its own that may hang or crash, for data that nobody
            has checked.
        content: What goes with a clip: its "captions", or "questions" with their answers, as
            in shards that ``vmm shards make`` made of a question set; then a batch has
            ``answers``, and evaluation during training takes one question of each clip; or the
            "labels" that its JSON has, for classification.
        label_field: Where in the JSON the labels are; a dot leads into an object. None = where
            ``vmm shards make`` writes them, or ``label``.
        positives: What counts as a positive pair in the contrastive loss: "sample" = its own
            caption, "caption" = also equal captions of other samples. "row" is the published
            choice: the row in its own data set, so that rows of two sets may count by accident.
        on_bad: What stands in for a training sample that cannot be decoded: "replace" = another
            one of its corpus, media and caption together; "skip" = nothing, the batch is smaller
            (one process only).
        max_bad: Stop training when more than this share of the samples cannot be decoded.
        quarantine: File that records all that is not used, one JSON line each; None =
            ``quarantine.jsonl`` in the run directory.
    """

    def __init__(
        self,
        train_videos: Shards | None = None,
        train_images: Shards | None = None,
        val_videos: str | list[str] | None = None,
        val_images: str | list[str] | None = None,
        test_videos: str | list[str] | None = None,
        test_images: str | list[str] | None = None,
        test_views: Views = Views(),
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
        auto_augment: str | None = None,
        crop_scale: tuple[float, float] = (0.5, 1.0),
        flip: bool = False,
        flip_sided: bool = False,
        random_erasing: float = 0.0,
        aug_repeats: int = 1,
        sampler_repeats: int = 1,
        fit: Fit = "squash",
        crop_pct: float = 1.0,
        interpolation: Interpolation = "bicubic",
        antialias: bool = True,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
        decoder: Decoder = "pyav",
        isolate_decode: bool = False,
        content: Content = "captions",
        label_field: str | None = None,
        positives: Positives = "sample",
        on_bad: OnBad = "replace",
        max_bad: float = 0.1,
        quarantine: str | None = None,
    ) -> None:
        super().__init__(num_frames, image_size)
        refuse_counts(batch_size, image_batch_size, steps_per_epoch, num_workers)
        self.train_videos, self.train_images = train_videos, train_images
        self.val_videos, self.val_images = val_videos, val_images
        self.test_videos, self.test_images = test_videos, test_images
        self.test_views = test_views
        refuse_empty({name: getattr(self, name) for name in _SHARDS})
        self.batch_size, self.image_batch_size = batch_size, image_batch_size
        self.steps_per_epoch = steps_per_epoch
        self.num_workers = num_workers
        self.seed = seed
        # Frames and size are known when the encoder is: see `clip_settings`.
        self._clip_settings = partial(
            ClipSettings, mean=mean, std=std, sampling=sampling, fps=fps, stride=stride,
            auto_augment=auto_augment, crop_scale=crop_scale, flip=flip, flip_sided=flip_sided,
            random_erasing=random_erasing, aug_repeats=aug_repeats, fit=fit, crop_pct=crop_pct,
            interpolation=interpolation, antialias=antialias, decoder=decoder,
            isolate_decode=isolate_decode,
        )  # fmt: skip
        self._clip_settings(num_frames=num_frames or 1, image_size=image_size or 1)  # or refuse
        if sampler_repeats < 1:
            raise ValueError(f"sampler_repeats {sampler_repeats} must be at least 1")
        self.sampler_repeats = sampler_repeats
        self.content = content_of(content, label_field)
        self.positives: Positives = positives
        self.on_bad: OnBad = on_bad
        if not 0 <= max_bad <= 1:
            raise ValueError(f"max_bad {max_bad} is no share of the samples; give e.g. 0.1")
        self.bad = BadSamples(quarantine, max_bad)
        self._stream: TrainStream | ResampledStream | None = None
        self._loader: TrainLoader | None = None
        self._saved: dict[str, Any] | None = None

    def patterns(self) -> list[str]:
        """List the patterns of all shards that are named."""
        named: list[Shards | None] = [getattr(self, name) for name in _SHARDS]
        return [pattern for shards in named if shards for pattern in patterns_of(shards)]

    def prepare_data(self) -> None:
        """Index all shards once per machine.

        Raises:
            ValueError: If a shard pattern is wrong.
        """
        local = (pattern for pattern in self.patterns() if not is_remote(pattern))
        index_shards(expand_shards([*local], quiet=True))

    def setup(self, stage: str) -> None:
        """Check early that clips fit the encoder and are new, and place the quarantine file."""
        self.clip_settings()
        part = {"fit": "val", "validate": "val", "test": "test"}.get(stage)
        media = ("videos", "images") if part and rank() == 0 else ()
        pairs = ({n: getattr(self, n) for n in (f"train_{m}", f"{part}_{m}")} for m in media)
        self.leaks = [leak for pair in pairs if (leak := warn_of_leak(pair))]
        if self.bad.record is not None:
            Path(self.bad.record).parent.mkdir(parents=True, exist_ok=True)
        elif self.trainer is not None and self.trainer.loggers:
            folder = run_folder(self.trainer)
            self.bad.record = None if folder is None else str(folder / "quarantine.jsonl")

    def clip_settings(self) -> ClipSettings:
        """Return how videos become network input."""
        num_frames, image_size = self.clip_size()
        return self._clip_settings(num_frames=num_frames, image_size=image_size)

    def train_dataloader(self) -> TrainLoader:
        """Return the training batches, from where the trainer stands.

        Raises:
            ValueError: If there is no data, or other data than in the run that is continued.
        """
        named: dict[Media, Shards | None] = {"video": self.train_videos, "image": self.train_images}
        sources = {media: shards for media, shards in named.items() if shards}
        if not sources:
            raise ValueError(
                "no training data: set data.init_args.train_videos (or train_images) to a shard "
                "pattern, e.g. 'data/demo/train-*.tar'"
            )
        batch_sizes: dict[Media, int] = {
            "video": self.batch_size,
            "image": self.batch_size if self.image_batch_size is None else self.image_batch_size,
        }
        if any(is_remote(p) for shards in sources.values() for p in patterns_of(shards)):
            if self.sampler_repeats > 1:
                raise ValueError(
                    f"sampler_repeats {self.sampler_repeats} needs an order of the samples, which "
                    "shards behind URLs do not have; use aug_repeats, or copy them to a disk"
                )
            self._stream = ResampledStream(
                sources, batch_sizes, self.clip_settings(), self.steps_per_epoch, seed=self.seed,
                rank=rank(), positives=self.positives, bad=self.bad, content=self.content,
            )  # fmt: skip
        else:
            self._stream = TrainStream(
                self._open_indexed(sources, record=rank() == 0), batch_sizes,
                self.clip_settings(), seed=self.seed, rank=rank(), world_size=world_size(),
                steps_per_epoch=self.steps_per_epoch, positives=self.positives,
                on_bad=self.on_bad, bad=self.bad, content=self.content,
                sampler_repeats=self.sampler_repeats,
            )  # fmt: skip
        identity = self._stream.identity()
        refuse_unequal_data(identity)
        self._continue(identity)
        self._loader = TrainLoader(self._stream, self.num_workers, lambda: next_step(self.trainer))
        return self._loader

    def _open_indexed(self, sources: dict[Media, Shards], record: bool) -> dict[Media, Mixture]:
        mixtures = open_corpora(sources, self.seed, self.content.captioned)
        for mixture in mixtures.values():
            for sample in mixture.left_out() if record else ():
                self.bad.write(sample)
        return mixtures

    def val_dataloader(self) -> DataLoader[EvaluationSample] | list[object]:
        """Return every validation clip once; fitting without validation data is allowed."""
        fitting = self.trainer is not None and self.trainer.state.fn == "fit"
        if not self.validates and fitting:
            return []
        return self._evaluation_loader("val", keep_unreadable=True)

    @property
    def validates(self) -> bool:
        """Whether there is validation data."""
        return bool(self.val_videos or self.val_images)

    def test_dataloader(self) -> DataLoader[EvaluationSample]:
        """Return every test clip once, in all its views if the task sees several."""
        task = self.trainer.lightning_module if self.trainer else None
        seen = getattr(task, "sees_views", False)
        if not seen and self.test_views != Views():
            raise ValueError(
                f"data.init_args.test_views is {self.test_views}, and only classifiers are tested "
                "by several views; leave it out"
            )
        return self._evaluation_loader("test", True, self.test_views if seen else None)

    def predict_dataloader(self) -> DataLoader[EvaluationSample]:
        """Return every readable test clip once."""
        return self._evaluation_loader("test", keep_unreadable=False)

    def _evaluation_loader(
        self, part: str, keep_unreadable: bool, views: Views | None = None
    ) -> DataLoader[EvaluationSample]:
        named: dict[Media, str | list[str] | None] = {
            "video": getattr(self, f"{part}_videos"), "image": getattr(self, f"{part}_images"),
        }  # fmt: skip
        (media, shards), *more = [pair for pair in named.items() if pair[1]] or [("video", None)]
        if shards is None or more:
            raise ValueError(
                f"data.init_args.{part}_videos and {part}_images are {'both' if more else 'not'} "
                "set; give one of them a shard pattern, e.g. 'data/demo/test-*.tar'"
            )
        settings = self.clip_settings()
        return DataLoader(
            EvaluationClips(
                shards, settings, kind=media, bad=self.bad, views=views,
                captioned=self.content.captioned,
            ),
            batch_size=self.batch_size,  # by name: Lightning builds the loader anew in predict
            num_workers=self.num_workers,
            collate_fn=partial(
                collate, settings=settings, positives=self.positives, blank=keep_unreadable,
                content=self.content, media=media, views=views,
            ),
            pin_memory=torch.cuda.is_available(),
            timeout=600 if self.num_workers else 0,
            worker_init_fn=init_worker,
        )  # fmt: skip

    def on_after_batch_transfer(self, batch: VideoTextBatch, dataloader_idx: int) -> VideoTextBatch:
        """Normalise clips on the device: workers send bytes, a quarter of the numbers' size."""
        assert self.trainer is not None
        ready = normalised(batch, self.clip_settings())
        # As Lightning does with the numbers that loaders give.
        converted: VideoTextBatch = self.trainer.precision_plugin.convert_input(ready)
        return converted

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the training data, and what the order of samples depends on.

        The position is the number of batches whose optimizer step is done: batches that workers
        have prepared, and those of an unfinished gradient accumulation, come again.
        """
        if self._stream is None:
            return {}
        return {"completed": stepped_batches(self.trainer), **self._stream.identity()}

    def samples_taken(self) -> dict[str, int]:
        """Count the samples before the next step, as ``TrainStream.taken``."""
        known = isinstance(self._stream, TrainStream)
        return self._stream.taken(next_step(self.trainer)) if known else {}  # type: ignore[union-attr]

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep a saved state until the training data is opened."""
        self._saved = state or None

    def reading(self) -> str:
        """Say what the workers of training are reading."""
        return str(self._stream.board) if self._stream else "nothing"

    def on_exception(self, exception: BaseException) -> None:
        """Say what a worker was reading that died while this process was training."""
        reason = self._loader.explain(exception) if self._loader else None
        if reason:
            exception.add_note(reason)

    def _continue(self, identity: dict[str, Any]) -> None:
        """Go on with a saved state, if there is one and the data is the same."""
        state, self._saved = self._saved, None
        if state is None or self.trainer is None:
            return
        refuse_other_data(state, identity)
        go_back(self.trainer, int(state["completed"]))
