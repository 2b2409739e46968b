"""Stage 2: contrastive, matching and masked-language training of a video-text model.

VideoMamba (arXiv 2403.06977), section 3.3; the order of a step is the order of
``compute_losses``. Shape legend: see ``vmm.types``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from vmm.distributed import GatherGradient, gather_objects, share
from vmm.losses.contrastive import ContrastiveKind, Pairs, contrastive_loss
from vmm.losses.matching import HardNegatives, matching_loss, sample_hard_negatives
from vmm.losses.mlm import mlm_loss
from vmm.masking import IGNORED, MASKS, MaskedWords, mlm_mask
from vmm.metrics import metric_names, retrieval_metrics
from vmm.models.text_interface import TextEncoder, VisionKV
from vmm.models.video_encoder import VideoEncoder
from vmm.models.video_text import VideoTextModel
from vmm.ops.similarity import frame_similarity
from vmm.tasks.adaptation import encoder_ratios
from vmm.tasks.base import LossOutput, refuse_outside
from vmm.tasks.captions import say_of_captions
from vmm.tasks.draws import sample_draws
from vmm.tasks.gradient_cache import Parts, joined, keep_little, mean_of_means, say_of_accumulation
from vmm.tasks.loss_terms import (
    DRAW_ALL,
    Draws,
    Encoded,
    LossWeights,
    check_contrast,
    check_weights,
)
from vmm.tasks.pretraining import PretrainTask, View
from vmm.types import TextTokens, VideoTextBatch


class Retrieved(NamedTuple):
    """Joint vectors of one validation batch, on the CPU."""

    key: list[str]
    video: Tensor
    """(B, P, E)."""
    text: Tensor
    """(B, E)."""


class VideoTextTask(PretrainTask):
    """Train two encoders, their joint space, the fusion layers and the matching head.

    Args:
        video_encoder: Encodes clips and stills.
        text_encoder: Makes the text encoder; called with the video encoder's width.
        proj_dim: Width of the joint space.
        temperature: Start value of the learned temperature; SigLIP begins at 0.1.
        loss_weights: Weights of the terms.
        mlm_probability: Share of the words that masked language modelling hides.
        hard_negatives: Draw negatives for matching by similarity, otherwise uniformly.
        gather: Gradient of the gathered contrastive loss across processes; ``exact`` is the
            gradient of the global loss, ``local`` the published one (own rows only).
        optimizer: Makes the optimizer from parameter groups.
        text_lr_ratio: Learning rate of the text encoder, as a share of the optimizer's: a BERT
            wants smaller steps than a state-space encoder.
        layer_decay: Learning rate of a layer of the video encoder, as a multiple of the next one's.
        micro_batch: Clips that go through the encoders at once, where memory has no room for the
            whole batch; the losses still see all of it, and are the same. Costs a second forward.
            Other tasks have no negatives: there trainer.accumulate_grad_batches does as much.
        vtc_kind: The contrastive loss: ``softmax`` over the batch, as published, or ``sigmoid`` of
            each pair (SigLIP, arXiv 2303.15343), which adds a learned bias.
        logit_bias: Start value of that bias.
        label_smoothing: Share of the target of the softmax that is spread over the batch.
        shared: As for ``PretrainTask``.

    Raises:
        ValueError: If alignment is asked for without a teacher, or matching or masked words of a
            text encoder of which no layer looks at a video.
    """

    model: VideoTextModel

    def __init__(
        self,
        video_encoder: VideoEncoder,
        text_encoder: Callable[[int], TextEncoder],
        proj_dim: int = 512,
        temperature: float = 0.07,
        loss_weights: LossWeights = LossWeights(),
        mlm_probability: float = 0.5,
        hard_negatives: bool = True,
        gather: GatherGradient = "exact",
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=4e-4),
        text_lr_ratio: float = 1.0,
        layer_decay: float = 1.0,
        micro_batch: int | None = None,
        vtc_kind: ContrastiveKind = "softmax",
        logit_bias: float = -10.0,
        label_smoothing: float = 0.0,
        **shared: Any,
    ) -> None:
        super().__init__(optimizer=optimizer, **shared)
        refuse_outside(1, math.inf, proj_dim=proj_dim)
        refuse_outside(0.001, math.inf, temperature=temperature)
        refuse_outside(0, 1, mlm_probability=mlm_probability, layer_decay=layer_decay)
        refuse_outside(0, 1, label_smoothing=label_smoothing)
        refuse_outside(0, math.inf, text_lr_ratio=text_lr_ratio, **vars(loss_weights))
        refuse_outside(1, math.inf, micro_batch=1 if micro_batch is None else micro_batch)
        check_weights(loss_weights, self.teacher)
        sigmoid = check_contrast(vtc_kind, label_smoothing)
        self.label_smoothing = label_smoothing
        self.loss_weights = loss_weights
        self.mlm_probability = mlm_probability
        self.hard_negatives = hard_negatives
        self.gather: GatherGradient = gather
        self.text_lr_ratio = text_lr_ratio
        self.layer_decay = layer_decay
        self.micro_batch = micro_batch
        head = self.make_align_head(video_encoder) if loss_weights.align else None
        text = text_encoder(video_encoder.embed_dim)
        if loss_weights.vtm or loss_weights.mlm:
            text.fusing("set loss_weights.vtm and loss_weights.mlm to 0")
        bias = logit_bias if sigmoid and loss_weights.vtc else None
        self.model = VideoTextModel(video_encoder, text, proj_dim, temperature, head, bias)
        self.lr_ratios()  # which may be refused
        self._retrieved: list[Retrieved] = []

    def curves(self) -> set[str]:
        """The terms that have a weight, and the metrics of validation."""
        terms = {name for name, weight in vars(self.loss_weights).items() if weight}
        right = {"vtc_t2v_accuracy", "vtc_v2t_accuracy"} if "vtc" in terms else set()
        train = terms | right | {"temperature"}
        if self.model.logit_bias is not None:
            train.add("logit_bias")
        return {f"train/{name}" for name in train} | {f"val/{name}" for name in metric_names()}

    def lr_ratios(self) -> dict[str, float]:
        """The text encoder's, and those of the video encoder's layers."""
        text = {"model.text_encoder.": self.text_lr_ratio}
        return text | encoder_ratios(self.video_encoder, self.layer_decay)

    def unread(self) -> list[nn.Module | nn.Parameter]:
        """What serves a term that is off."""
        weights, model = self.loss_weights, self.model
        fused = bool(weights.vtm or weights.mlm)
        parts: list[nn.Module | nn.Parameter] = []
        if not weights.vtc:
            parts += [model.vision_proj, model.text_proj, model.temperature]
        if not weights.vtm:
            parts += [model.itm_head]
        if not (weights.vtc or fused):
            parts += [model.text_encoder]
        parts += model.text_encoder.unread(fused, words=bool(weights.mlm))
        return parts + model.video_encoder.unread(tokens=fused, pooled=bool(weights.vtc))

    def on_fit_start(self) -> None:
        """Say what becomes of captions, and what gradient accumulation does not do."""
        if self.micro_batch is not None:
            keep_little()
        say_of_captions(self.trainer, self.model.text_encoder)
        if self.loss_weights.vtc and self.trainer.is_global_zero:
            say_of_accumulation(self.trainer.accumulate_grad_batches)

    def compute_losses(self, batch: VideoTextBatch, draws: Draws = DRAW_ALL) -> LossOutput:
        """All terms with a weight, on what the mask leaves visible.

        Args:
            batch: Clips or stills with captions.
            draws: What not to draw at random.
        """
        weights, model = self.loss_weights, self.model
        parts = Parts(len(batch["text"]), self.micro_batch)

        view = self.view(batch, draws.dropped, parts)
        encode = partial(self._encode, keep_temporal=self._keep_temporal(view.dropped))
        tokens = model.text_encoder.tokenize(batch["text"], self.device)
        masked = None
        if weights.mlm:
            masked = draws.masked_words or self._mask_words(tokens, batch["key"])
        with_gaps = None if masked is None else masked.input_ids
        seen, said = zip(*parts(encode, batch["video"], view, tokens, with_gaps), strict=True)
        video_proj, text_tokens, text_proj, gap_tokens, align = joined(said)
        terms: dict[str, Tensor] = {}
        log = {"temperature": model.temperature.detach().squeeze()}
        if weights.vtc:
            rows = None if parts.whole else self.micro_batch
            asked = Pairs(model.logit_bias, self.label_smoothing)
            vtc = contrastive_loss(
                video_proj, text_proj, model.temperature, batch["idx"], self.gather, rows, asked
            )
            if model.logit_bias is not None:
                log["logit_bias"] = model.logit_bias.detach().squeeze()
            terms["vtc"] = vtc.loss
            log |= {"vtc_t2v_accuracy": vtc.t2v_accuracy, "vtc_v2t_accuracy": vtc.v2t_accuracy}
        mask = tokens.attention_mask
        vision: list[Tensor] | VisionKV = list(seen)
        if parts.whole and (weights.vtm or weights.mlm):
            vision = model.fusion.project_vision(seen[0])  # once for both
        if weights.vtm:
            negatives = draws.negatives or self._negatives(video_proj, text_proj, batch)
            matching = self._matching(text_tokens, mask, vision, negatives, parts)
            pairs = len(mask) + 2 * negatives.valid.sum()
            terms["vtm"] = matching * share(pairs, mask.device)
        if masked is not None:
            guessed = parts(self._masked_language, gap_tokens, masked.labels, mask, vision)
            hidden = parts.counts((masked.labels != IGNORED).sum(1))
            language = mean_of_means(torch.stack(guessed), hidden)
            terms["mlm"] = language * share(hidden.sum(), mask.device)
        if align is not None:
            aligned = mean_of_means(align, parts.counts(torch.ones_like(batch["idx"])))
            terms["align"] = aligned * share(len(mask), mask.device)

        total = torch.stack([getattr(weights, name) * term for name, term in terms.items()]).sum()
        return LossOutput(total, terms, log)

    def _encode(
        self,
        video: Tensor,
        view: View,
        tokens: TextTokens,
        with_gaps: Tensor | None,
        keep_temporal: bool,
    ) -> tuple[Tensor, Encoded]:
        """Encode clips and captions, each alone: tokens (B, visible patches, D), and the rest.

        Captions and the same with hidden words (B, S) are one batch: a large vocabulary has large
        gradients, which are made once then.
        """
        model = self.model
        encoding = model.encode_video(video, view.dropped, keep_temporal)
        ids, mask = tokens
        if with_gaps is None:
            text = model.encode_text(ids, mask)
            states, gaps = text.tokens, None
        else:
            text = model.encode_text(torch.cat([ids, with_gaps]), mask.repeat(2, 1))
            states, gaps = text.tokens.chunk(2)
        video_proj = model.project_video(encoding.pooled)
        text_proj = model.project_text(text.pooled[: len(ids)])
        align = self.align(encoding.aligned, view)[None] if self.loss_weights.align else None
        return encoding.tokens, Encoded(video_proj, states, text_proj, gaps, align)

    def _keep_temporal(self, dropped: Tensor | None) -> bool:
        """Whether every frame is pooled apart, which only comparable frames can be."""
        return dropped is None or all(MASKS[m.kind].same_places for m in self.masks.values())

    @torch.no_grad()
    def _negatives(
        self, video_proj: Tensor, text_proj: Tensor, batch: VideoTextBatch
    ) -> HardNegatives:
        """Draw a wrong partner for every clip and caption of this process's batch."""
        similarity = self.model.similarity(video_proj, text_proj, self.model.temperature)
        uniform = sample_draws(self._trainer, "negatives", batch["key"])
        return sample_hard_negatives(
            similarity, batch["idx"], uniform, "hard" if self.hard_negatives else "random"
        )

    def _matching(
        self,
        text: Tensor,
        mask: Tensor,
        vision: list[Tensor] | VisionKV,
        negatives: HardNegatives,
        parts: Parts,
    ) -> Tensor:
        """Matching loss over true pairs, negative videos and negative captions."""
        videos, texts, some = negatives
        wrong = text.index_select(0, texts), mask[texts]
        if isinstance(vision, VisionKV):
            return self._match(text, mask, vision, *wrong, vision[videos], some)
        # Each part gets the videos and captions that its negatives are, which may be of others.
        wrong_video = torch.cat(vision).index_select(0, videos)
        means = parts(self._match, text, mask, vision, *wrong, wrong_video, some)
        return mean_of_means(torch.stack(means), parts.counts(1 + 2 * some.long()))

    def _match(
        self,
        text: Tensor,
        mask: Tensor,
        vision: Tensor | VisionKV,
        wrong_text: Tensor,
        wrong_mask: Tensor,
        wrong_vision: Tensor | VisionKV,
        valid: Tensor,
    ) -> Tensor:
        """Matching loss of rows: true pairs, their videos with wrong captions, and vice versa."""
        captions = torch.cat([text, wrong_text]), torch.cat([mask, wrong_mask])
        seen = self.model.fuse(*captions, vision)
        fused = torch.cat([seen, self.model.fuse(text, mask, wrong_vision)])
        matched = torch.arange(len(fused), device=fused.device) < len(text)
        counts = matched | valid.repeat(3)
        return matching_loss(self.model.match_logits(fused)[counts], matched[counts])

    def _mask_words(self, tokens: TextTokens, keys: list[str]) -> MaskedWords:
        """Draw which words stay hidden."""
        encoder = self.model.fusion
        return mlm_mask(
            tokens.input_ids,
            sample_draws(self._trainer, "words", keys),
            cls_id=encoder.cls_id,
            pad_id=encoder.pad_id,
            mask_id=encoder.mask_id,
            vocab_size=encoder.vocab_size,
            probability=self.mlm_probability,
        )

    def _masked_language(
        self, text: Tensor, labels: Tensor, attention_mask: Tensor, vision: Tensor | VisionKV
    ) -> Tensor:
        """Guess hidden words (B, S) from the others, as (B, S, Dt), and the video."""
        states = self.model.fuse(text, attention_mask, vision)
        hidden = labels != IGNORED
        return mlm_loss(self.model.mlm_logits(states[hidden]), labels[hidden])

    def on_train_batch_start(self, batch: VideoTextBatch, batch_idx: int) -> None:
        """Keep the temperature in range."""
        self.model.clamp_temperature()

    def validation_step(self, batch: VideoTextBatch, batch_idx: int) -> None:
        """Encode held-out clips and captions for the retrieval metrics of the epoch."""
        self._retrieved.append(self._retrieve(batch))

    def _retrieve(self, batch: VideoTextBatch) -> Retrieved:
        if not batch["key"]:  # none of its samples can be used
            return Retrieved([], torch.empty(0), torch.empty(0))
        tokens = self.model.text_encoder.tokenize(batch["text"], self.device)
        parts = Parts(len(batch["text"]), self.micro_batch)
        video, text = map(torch.cat, zip(*parts(self._joint, batch["video"], tokens), strict=True))
        return Retrieved(batch["key"], video.float().cpu(), text.float().cpu())

    def _joint(self, video: Tensor, tokens: TextTokens) -> tuple[Tensor, Tensor]:
        """Encode clips and captions as vectors of the joint space."""
        model = self.model
        video = model.project_video(model.encode_video(video).pooled)
        return video, model.project_text(model.encode_text(*tokens).pooled)

    def on_validation_epoch_end(self) -> None:
        """Log the retrieval metrics of the epoch."""
        self._log_retrieval("val")

    def test_step(self, batch: VideoTextBatch, batch_idx: int) -> None:
        """As in validation; ``vmm eval retrieval`` also re-ranks."""
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Log the retrieval metrics of the test shards."""
        self._log_retrieval("test")

    def _log_retrieval(self, prefix: str) -> None:
        """Gather over processes, drop samples that a sampler repeated, measure and log."""
        rows = {
            key: (video, text)
            for part in gather_objects(self._retrieved)
            for batch in part
            for key, video, text in zip(*batch, strict=True)
        }
        self._retrieved.clear()
        if not rows:
            raise ValueError(f"no {prefix} sample can be used; see data.init_args.{prefix}_videos")
        videos = torch.stack([video for video, _ in rows.values()])
        texts = torch.stack([text for _, text in rows.values()])
        similarity = frame_similarity(videos, texts).T.contiguous()
        own = torch.arange(len(rows), device=similarity.device)
        for name, value in retrieval_metrics(similarity, own).items():
            headline = name == "t2v_recall_1"
            self.log(f"{prefix}/{name}", value, prog_bar=headline)  # equal on all processes

    def predict_step(self, batch: VideoTextBatch, batch_idx: int) -> Retrieved:
        """Joint vectors of a batch, which may be empty; ``EmbeddingWriter`` stores them."""
        return self._retrieve(batch)
