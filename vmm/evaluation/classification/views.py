"""Several views of each video, scored apart and merged by sample.

A view is a clip of the video and a square cut out of it. All views of a sample are made together
and stay together: a file name never decides what is merged. (The published code merges by the base
name, so recordings of equal name in different folders count as one video.)

Shape legend: see ``vmm.types``; V views, K classes, P vectors per view, E joint width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from vmm.data.faults import BadSample, BadSamples, SampleError
from vmm.data.schema import RawSample
from vmm.data.shards import EvaluationSample
from vmm.data.transforms import ClipSettings
from vmm.data.views import Views, look
from vmm.evaluation.common.models import ClipEncoder, ClipVectors, describe_model
from vmm.evaluation.common.sources import FrameOrder
from vmm.models.classifier import VideoClassifier
from vmm.runs import TrainedModel
from vmm.types import Media


class _Samples(Protocol):
    @property
    def kind(self) -> Media: ...

    @property
    def lost(self) -> Mapping[str, int]: ...

    def __len__(self) -> int: ...

    def raw(self, index: int) -> RawSample: ...

    def fingerprint(self) -> str: ...


class ViewedClips(Dataset[EvaluationSample]):
    """All views of every sample: ``video`` is (V, T, C, H, W).

    A sample of which one view cannot be read is unreadable; views are never left out.

    Args:
        media: The samples.
        keys: Their ids.
        settings: Frames and size of a view.
        views: How many.
        frame_order: "reversed" plays every view backwards.
        bad: Collects what cannot be read.

    Raises:
        ValueError: If there are several crops and frames are squashed, which would make all equal.
    """

    def __init__(
        self,
        media: _Samples,
        keys: Sequence[str],
        settings: ClipSettings,
        views: Views,
        frame_order: FrameOrder = "forward",
        bad: BadSamples | None = None,
    ) -> None:
        views.check(settings)
        self._media, self._keys = media, keys
        self.lost = media.lost
        self._settings, self._views = settings, views
        self.frame_order = frame_order
        self._bad = bad or BadSamples()

    def __len__(self) -> int:
        return len(self._media)

    def __getitem__(self, index: int) -> EvaluationSample:
        key = self._keys[index]
        try:
            raw = self._media.raw(index)
            video = look(raw, self._media.kind, self._settings, self._views)
        except SampleError as error:
            self._bad.add(BadSample("", key, error.reason, error.detail))
            return EvaluationSample(key, index, None, [], {}, error.reason)
        if self.frame_order == "reversed":
            video = video.flip(-4)
        return EvaluationSample(key, index, video, [], {}, None)

    def fingerprint(self) -> str:
        """Tell states of the data and kinds of views apart."""
        return f"{self._media.fingerprint()} {self._views}"


class ViewedEncoder:
    """Any model, shown all views at once: P becomes V * P.

    Args:
        encoder: The model.
    """

    def __init__(self, encoder: ClipEncoder) -> None:
        self.name = encoder.name
        self.clip = encoder.clip
        self._encoder = encoder

    def identity(self) -> dict[str, Any]:
        """Say which model it is."""
        return self._encoder.identity()

    def encode_videos(self, video: Tensor) -> ClipVectors:
        """Encode (B, V, T, C, H, W), sample by sample: (B, V * P, E)."""
        rows = [self._encoder.encode_videos(views).projected.flatten(0, 1) for views in video]
        return ClipVectors(torch.stack(rows))


class ClassifierEncoder:
    """A classifier, whose "vectors" are logits.

    Args:
        trained: The classifier, from ``vmm.runs.load_model``.
        clip: How a video becomes its input.
        device: Where to compute.
    """

    def __init__(
        self, trained: TrainedModel[VideoClassifier], clip: ClipSettings, device: str
    ) -> None:
        self.model = trained.model.to(device)
        self.num_classes = self.model.head.out_features
        self.clip = clip
        self.name = f"{type(self.model.video_encoder).__name__} classifier"
        self._device = device
        checkpoint = trained.checkpoint.name
        self._identity = describe_model(self.name, self.model, checkpoint, trained.sha256)

    def identity(self) -> dict[str, Any]:
        """Say which model it is."""
        return self._identity

    def encode_videos(self, video: Tensor) -> ClipVectors:
        """Classify clips (B, T, C, H, W): (B, 1, K) logits."""
        return ClipVectors(self.model(video.to(self._device)).float()[:, None])
