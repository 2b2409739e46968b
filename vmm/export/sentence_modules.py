"""Exported encoders as models of sentence-transformers: ``SentenceTransformer``, ``CrossEncoder``.

    SentenceTransformer("exported/dual_encoder", trust_remote_code=True).encode(["a red ball"])
    CrossEncoder("exported/cross_encoder", trust_remote_code=True).rank("a red ball", ["a.mp4"])

sentence-transformers asks for ``trust_remote_code`` for every module that is not its own; the code
that it runs is this installed file, the folders hold none. Needs the extra
``sentence-transformers``. Shape legend: see ``vmm.types``; E is the width of the joint space.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import sentence_transformers
import torch
from sentence_transformers.base.modules import InputModule
from torch import Tensor

from vmm.data.schema import VIDEO_EXTENSIONS
from vmm.data.text_input import clean_text
from vmm.export.encoder import VideoTextEncoder
from vmm.export.folder import EncoderParts, write_card, write_folder
from vmm.export.towers import Matcher, TextTower, VideoTower, finite
from vmm.export.usage import CROSS_ENCODER, DUAL_ENCODER
from vmm.models.video_text import VideoTextModel
from vmm.ops.similarity import RankBy

DUAL, CROSS = "dual_encoder", "cross_encoder"

_PLACE = re.compile(r"(/|~/|\.{1,2}/|[A-Za-z]:\\|\w+://)\S+$")
"""How paths begin, and no caption does."""


class _EncoderModule(InputModule):  # type: ignore[misc]  # untyped where it is not installed
    """What both modules share: an encoder folder is loaded, saved, and reads inputs."""

    def __init__(self, encoder: VideoTextEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.model = encoder.model
        self.tokenizer = getattr(self.model.text_encoder, "tokenizer", None)

    @classmethod
    def load(cls, model_name_or_path: str, revision: str | None = None, **_: Any) -> Self:
        """Load the module from an encoder folder or from the hub."""
        return cls(VideoTextEncoder.from_pretrained(model_name_or_path, revision=revision))

    def save(self, output_path: str, *_: Any, **__: Any) -> None:
        """Copy the folder that the module was loaded from.

        Raises:
            ValueError: If its weights have been trained since.
        """
        trained = self.encoder.model.state_dict()
        stored = VideoTextEncoder.from_pretrained(self.encoder.folder, device="cpu").model
        if any(not torch.equal(trained[k].cpu(), v) for k, v in stored.state_dict().items()):
            raise ValueError("the model was trained since the export; train it with `vmm fit`")
        for path in self.encoder.folder.iterdir():
            if path.is_file():
                shutil.copy(path, output_path)

    def _texts(self, texts: Sequence[str]) -> dict[str, Tensor]:
        tokens = self.model.text_encoder.tokenize([clean_text(text) for text in texts])
        return {"input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask}

    def _videos(self, videos: Sequence[Any]) -> Tensor:
        return torch.stack(list(self.encoder.load_videos([_as_video(v) for v in videos])))


class DualEncoder(_EncoderModule):
    """Captions and videos to unit vectors; the only module of a ``SentenceTransformer``."""

    def __init__(self, encoder: VideoTextEncoder) -> None:
        super().__init__(encoder)
        self._towers = VideoTower(self.model), TextTower(self.model)

    @property
    def modalities(self) -> list[str]:
        """What can be encoded."""
        return ["text", "video"]

    def get_embedding_dimension(self) -> int:
        """Width E of the vectors."""
        return self.encoder.embedding_dim

    def preprocess(
        self, inputs: Sequence[Any], prompt: str | None = None, **_: Any
    ) -> dict[str, Any]:
        """Read a batch of captions, or of videos as ``{"video": file or frames}`` or files.

        Raises:
            ValueError: If the batch mixes both, or a video cannot be read.
        """
        kinds = {_is_video(item) for item in inputs}
        if len(kinds) > 1:
            raise ValueError("a batch mixes texts and videos; encode them one after the other")
        if kinds == {True}:
            return {"video": self._videos(inputs)}
        return self._texts([(prompt or "") + text for text in inputs])

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Add ``sentence_embedding``, (B, E)."""
        video_tower, text_tower = self._towers
        if "video" in features:
            vectors = video_tower(features["video"])
        else:
            vectors = text_tower(features["input_ids"], features["attention_mask"])
        return {**features, "sentence_embedding": finite(vectors, "row {} of a batch".format)}


class MatchingHead(_EncoderModule):
    """Pairs of a caption and a video to scores; the only module of a ``CrossEncoder``.

    Scores are those of ``VideoTextEncoder.score``: the mixture, or, with ``cross_encoder[0].by =
    "matching"``, the logits of the matching head alone.
    """

    by: RankBy = "mixture"

    def __init__(self, encoder: VideoTextEncoder) -> None:
        super().__init__(encoder)
        self._matcher = Matcher(self.model)

    @property
    def modalities(self) -> list[Any]:
        """What can be scored: pairs count as messages."""
        return ["text", "video", "message"]

    def preprocess(
        self, inputs: Sequence[Any], prompt: str | None = None, **_: Any
    ) -> dict[str, Any]:
        """Read a batch of pairs, caption and video in either order.

        Raises:
            ValueError: If an item is no such pair, or a video cannot be read.
        """
        texts, videos = [], []
        for pair in inputs:
            items = sorted(pair, key=_is_video)
            if [_is_video(item) for item in items] != [False, True]:
                raise ValueError(f"{pair!r:.200} is no pair of a caption and a video")
            texts.append((prompt or "") + items[0])
            videos.append(items[1])
        return {**self._texts(texts), "video": self._videos(videos)}

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Add ``scores``, (B, 1)."""
        captions = self._matcher.read_captions(features["input_ids"], features["attention_mask"])
        scores = self._matcher(captions, self._matcher.look_at(features["video"]), self.by)
        return {**features, "scores": finite(scores, "row {} of a batch".format).unsqueeze(1)}


def write_sentence_transformers(parts: EncoderParts, folder: Path) -> str:
    """Write the dual encoder and the matching head, each a folder that is complete by itself.

    Args:
        parts: The model.
        folder: Gets the folders ``dual_encoder`` and, where the model has a matching head of use,
            ``cross_encoder``.

    Returns:
        The fingerprint.
    """
    dual = folder / DUAL
    dual.mkdir()
    fingerprint = write_folder(parts, dual)
    if parts.of(VideoTextModel).text_encoder.fuses:
        shutil.copytree(dual, folder / CROSS)
        identity = "torch.nn.modules.linear.Identity"
        write_card(parts, folder / CROSS, CROSS_ENCODER)
        _describe(folder / CROSS, MatchingHead, "CrossEncoder", activation_fn=identity)
    write_card(parts, dual, DUAL_ENCODER)
    _describe(dual, DualEncoder, "SentenceTransformer", similarity_fn_name="cosine")
    return fingerprint


def _describe(folder: Path, module: type[_EncoderModule], kind: str, **settings: str) -> None:
    name = f"{module.__module__}.{module.__qualname__}"
    modules = [{"idx": 0, "name": "0", "path": "", "type": name}]
    (folder / "modules.json").write_text(json.dumps(modules, indent=2) + "\n")
    versions = {"sentence_transformers": sentence_transformers.__version__}
    config = {"model_type": kind, **settings, "__version__": versions}
    path = folder / "config_sentence_transformers.json"
    path.write_text(json.dumps(config, indent=2) + "\n")


def _is_video(item: Any) -> bool:
    """Tell videos from captions; a string is a video if it is the name of a file.

    Raises:
        ValueError: If it can only be meant as one, and there is no such file.
    """
    if not isinstance(item, str):
        return True
    path = Path(item)
    with suppress(OSError, ValueError):  # long captions are no names of files
        if path.is_file():
            return True
    if path.suffix[1:].lower() in VIDEO_EXTENSIONS or _PLACE.match(item):
        raise ValueError(f"there is no file {item!r:.200}; check the path")
    return False


def _as_video(item: Any) -> Any:
    """Take the video out of ``{"video": ...}``."""
    return item["video"] if isinstance(item, dict) and "video" in item else item
