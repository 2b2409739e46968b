"""An exported encoder as a model of mteb, whose leaderboards have video-text tasks.

    import mteb
    model = MtebEncoder.from_pretrained("runs/encoder")
    mteb.evaluate(model, mteb.get_tasks(["MSVDT2VRetrieval"]))

Videos are read by vmm, from the bytes that the data set holds, so that a clip has the vector that
vmm's own evaluations give it, and torchcodec is not needed. An input of a video and a text, as the
questions about videos are, is the mean of their two vectors, made a unit vector again. Needs the
extra ``mteb``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from datasets import Dataset, Video
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder, get_prompt_name
from mteb.models.model_meta import ScoringFunction

from vmm.export.encoder import Floats, VideoTextEncoder

_READ = ("text", "video")


class MtebEncoder:
    """What mteb calls an encoder (its ``EncoderProtocol``).

    Args:
        encoder: The encoder.
        num_frames: Frames that are looked at; None = as many as in training.
        prompts: Templates of texts, such as ``"a video of {}"``, by what mteb calls it: a task, a
            type of task, ``query`` or ``document``, or ``TASK-query``. The most special one counts.
        name: On the leaderboard, OWNER/NAME; None = made of the folder.

    Raises:
        ValueError: If a prompt has no place for the text, or is of nothing that mteb knows.
    """

    def __init__(
        self,
        encoder: VideoTextEncoder,
        *,
        num_frames: int | None = None,
        prompts: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> None:
        self._encoder = encoder
        self._num_frames = num_frames
        self._prompts = _checked(prompts or {})
        self.mteb_model_meta = _meta(encoder, num_frames, name)

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, device: str | None = None, **options: Any
    ) -> Self:
        """Load what ``vmm export`` wrote.

        Args:
            name: The folder, or OWNER/NAME on the Hugging Face hub.
            device: Where to compute; None = the GPU if there is one.
            options: Of the class.
        """
        return cls(VideoTextEncoder.from_pretrained(name, device=device), **options)

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,
        batch_size: int = 32,
        show_progress_bar: bool = False,
        **_: Any,
    ) -> Floats:
        """Encode what a task asks for.

        Args:
            inputs: A ``DataLoader`` of mteb, whose data set has the columns ``text`` or ``video``.
            task_metadata: Of the task; chooses the prompt.
            hf_split: Unused.
            hf_subset: Unused.
            prompt_type: Whether these are queries or documents; chooses the prompt.
            batch_size: Inputs that are encoded at once.
            show_progress_bar: Show a bar on stderr.

        Returns:
            (n, E) of length 1 each.

        Raises:
            ValueError: If the inputs have neither column, or a video cannot be read.
        """
        data: Dataset = inputs.dataset
        columns = [name for name in _READ if name in data.column_names]
        if not columns:
            raise ValueError(
                f"{task_metadata.name} asks for {', '.join(data.column_names)}; this model reads "
                "videos and texts only"
            )
        how: dict[str, Any] = {"batch_size": batch_size, "progress": show_progress_bar}
        vectors = []
        if "text" in columns:
            key = get_prompt_name(self._prompts, task_metadata, prompt_type)
            template = self._prompts[key] if key else "{}"
            texts = [template.replace("{}", text) for text in data["text"]]
            vectors.append(self._encoder.encode_text(texts, **how))
        if "video" in columns:
            found = [
                self._encoder.encode_video(files, num_frames=self._num_frames, **how)
                for files in _files(data, batch_size)
            ]
            vectors.append(np.concatenate(found))
        mean = np.mean(vectors, axis=0, dtype=np.float32)
        unit: Floats = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        return vectors[0] if len(vectors) == 1 else unit

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Give the cosines of all pairs: (n, E) and (m, E) to (n, m)."""
        return np.asarray(embeddings1) @ np.asarray(embeddings2).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Give the cosines of the pairs in order: twice (n, E) to (n,)."""
        return (np.asarray(embeddings1) * np.asarray(embeddings2)).sum(-1)


def _files(data: Dataset, size: int) -> Iterator[list[bytes | Path]]:
    """Yield the videos' files, ``size`` at a time; mteb would decode all of their frames."""
    plain = data.select_columns(["video"]).cast_column("video", Video(decode=False))
    for rows in plain.iter(batch_size=size):
        yield [row["bytes"] or Path(row["path"]) for row in rows["video"]]


def _checked(prompts: Mapping[str, str]) -> dict[str, str]:
    for key, template in prompts.items():
        if template.count("{}") != 1:
            raise ValueError(
                f"the prompt {template!r} of {key} must have one {{}}, the place of the text"
            )
    try:
        AbsEncoder.validate_task_to_prompt_name(dict(prompts))
    except KeyError as error:
        raise ValueError(f"mteb knows no task, type of task or role {error}") from error
    return dict(prompts)


def _meta(encoder: VideoTextEncoder, num_frames: int | None, name: str | None) -> Any:
    """Describe the model as mteb wants it: nothing that is not known."""
    count = sum(parameter.numel() for parameter in encoder.model.parameters())
    return ModelMeta(
        loader=None,
        name=name or f"vmm/{encoder.folder.resolve().name}",
        revision=encoder.fingerprint,
        release_date=None,
        languages=["eng-Latn"],
        n_parameters=count,
        memory_usage_mb=count * 4 / 2**20,
        max_tokens=encoder.model.text_encoder.max_words,
        embed_dim=encoder.embedding_dim,
        license=None,
        open_weights=None,
        public_training_code=None,
        public_training_data=None,
        framework=["PyTorch"],
        similarity_fn_name=ScoringFunction.COSINE,
        use_instructions=False,
        training_datasets=None,
        modalities=["text", "video"],
        experiment_kwargs={"num_frames": num_frames} if num_frames else None,
    )
