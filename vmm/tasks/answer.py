"""Fine-tuning on open questions: a decoder learns to say the answer (UMT, arXiv 2303.16058).

It starts from a run of stage 2 (``init_from``); a model without this training cannot answer, so
nothing that it says is zero-shot. Shape legend: see ``vmm.types``.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import nn

from vmm.data.annotations.questions import read_answer_list
from vmm.distributed import gather_objects, share
from vmm.losses.answer import answer_loss, weigh_answers
from vmm.models.answer import AnswerList, AnswerModel
from vmm.models.text_interface import TextEncoder, VisionKV
from vmm.models.video_encoder import VideoEncoder
from vmm.tasks.base import LossOutput, TrainingTask, refuse_outside
from vmm.types import VideoTextBatch
from vmm.wording import clean_caption

logger = logging.getLogger(__name__)


class AnswerTask(TrainingTask):
    """Train a question encoder that sees the video, and a decoder that says the answer.

    Args:
        video_encoder: Encodes clips.
        text_encoder: Makes the question encoder, a BERT; called with the video encoder's width. The
            decoder has the size of its fusion layers, and starts from their weights.
        answers: JSON list of the answers to rank in validation.
        optimizer: Makes the optimizer from parameter groups.
        decoder_lr_ratio: Learning rate of the decoder, which is new, as a multiple of the
            optimizer's.
        weight_decay: For the parameters that are decayed at all.
        init_from: Run directory of stage 2 or of this task, an imported checkpoint, or a
            checkpoint file.
        shared: As for ``TrainingTask``.
    """

    model: AnswerModel

    def __init__(
        self,
        video_encoder: VideoEncoder,
        text_encoder: Callable[[int], TextEncoder],
        answers: str,
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=2e-5, betas=(0.9, 0.999)),
        decoder_lr_ratio: float = 1.0,
        weight_decay: float = 0.02,
        init_from: str | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(
            optimizer=optimizer, weight_decay=weight_decay, init_from=init_from, **shared
        )
        refuse_outside(0, math.inf, decoder_lr_ratio=decoder_lr_ratio)
        self.answers = answers
        self.decoder_lr_ratio = decoder_lr_ratio
        self.model = AnswerModel(video_encoder, text_encoder(video_encoder.embed_dim))
        self._list: AnswerList | None = None
        self._right: list[tuple[str, bool]] = []

    def curves(self) -> set[str]:
        """Of training and validation."""
        return {"train/answer", "val/loss", "val/accuracy"}

    def lr_ratios(self) -> dict[str, float]:
        """The decoder's."""
        return {"model.answer_decoder.": self.decoder_lr_ratio}

    def unread(self) -> list[nn.Module | nn.Parameter]:
        """What makes the pooled features."""
        return [*self.video_encoder.unread(tokens=True, pooled=False)]

    def load_start(self) -> list[str]:
        """Load all weights; the decoder's from the text encoder, unless a run has one."""
        if self.init_from is None:
            logger.warning("no init_from: question encoder and decoder start untrained")
        loaded = super().load_start()
        if "answer_decoder" not in loaded:
            report = self.model.answer_decoder.start_from(self.model.text_encoder)
            logger.info("answer decoder, from the text encoder: %s", report)
        return loaded

    def compute_losses(self, batch: VideoTextBatch) -> LossOutput:
        """Teacher forcing: each word of each answer from the words before it.

        Raises:
            ValueError: If the batch has no answers.
        """
        questions = self._read(batch)
        texts, rows, weights = weigh_answers(_answers(batch))
        tokens = self.model.text_encoder.tokenize(texts, self.device)
        likelihood = self.model.log_likelihood(tokens, questions[rows.to(self.device)])
        loss = answer_loss(likelihood, weights.to(self.device), len(batch["text"]))
        if self.training:  # else a process may have no batch, and not come here
            loss = loss * share(len(batch["text"]), self.device)
        return LossOutput(loss, {"answer": loss}, {})

    def validation_step(self, batch: VideoTextBatch, batch_idx: int) -> None:
        """Rank the list for the accuracy of the epoch, and log the loss."""
        size = len(batch["text"])
        if size == 0:  # no clip of it has a question
            return
        loss = self.compute_losses(batch).total
        self.log("val/loss", loss, batch_size=size, sync_dist=True)
        ranked = self.model.rank(self._read(batch), self._answer_list())
        for key, question, given, ranking in zip(
            batch["key"], batch["text"], _answers(batch), ranked, strict=True
        ):
            said = clean_caption(self._answer_list().texts[int(ranking.answers[0])])
            right = said in {clean_caption(answer) for answer in given}
            self._right.append((f"{key} {question}", right))

    def on_validation_epoch_end(self) -> None:
        """Log the share of questions whose first answer is right, in percent."""
        asked = dict(entry for part in gather_objects(self._right) for entry in part)
        self._right.clear()
        if not asked:
            raise ValueError("no validation clip has a question; see data.init_args.val_videos")
        self.log("val/accuracy", 100 * sum(asked.values()) / len(asked), prog_bar=True)

    def test_step(self, batch: VideoTextBatch, batch_idx: int) -> None:
        """Refuse: a test asks every question, with controls."""
        raise ValueError("test with `vmm eval open-qa --run RUN ...`")

    def predict_step(self, batch: VideoTextBatch, batch_idx: int) -> None:
        """Refuse: this model has no joint vectors."""
        raise ValueError("a model that answers has no embeddings; predict with a run of stage 2")

    def _read(self, batch: VideoTextBatch) -> VisionKV:
        tokens = self.model.text_encoder.tokenize(batch["text"], self.device)
        return self.model.read(tokens, self.model.see(batch["video"]))

    def _answer_list(self) -> AnswerList:
        """The list, read when it is first needed: the data may not be made before."""
        if self._list is None:
            self._list = self.model.answer_list(read_answer_list(Path(self.answers)))
        return self._list


def _answers(batch: VideoTextBatch) -> list[list[str]]:
    if "answers" not in batch:
        raise ValueError("the batch has no answers; set data.init_args.content to questions")
    return batch["answers"]
