"""BERT layers with optional cross-attention, under the parameter names of published checkpoints.

Devlin et al. 2018 (arXiv 1810.04805): every sub-layer is followed by residual and LayerNorm.
The modules nest the way the published names do
(``bert.encoder.layer.0.attention.self.query.weight``). Shape legend: see
``vmm.models.text_encoder``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vmm.models.text_interface import VisionKV
from vmm.ops.attention import attention

_MOST_LAYERS = 1000


@dataclass(frozen=True)
class BertArchitecture:
    """Sizes of a BERT, under the names of transformers' BertConfig; the defaults are BERT-base.

    Attributes:
        vocab_size: Words of the vocabulary.
        hidden_size: Width Dt.
        num_hidden_layers: Layers, fusion layers included.
        num_attention_heads: Heads h; must divide the width.
        intermediate_size: Inner width of the feed-forward part.
        max_position_embeddings: Longest caption, in tokens.
        type_vocab_size: Rows of the token type table; only the first is used.
        hidden_dropout_prob: Dropout in training.
        attention_probs_dropout_prob: Dropout of attention in training.
        initializer_range: Standard deviation of random weights.
        layer_norm_eps: Of every LayerNorm.
        pad_token_id: Word that fills captions up.

    Raises:
        ValueError: If a size is not positive or the heads do not divide the width.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0

    def __post_init__(self) -> None:
        """Check the sizes."""
        for name in ("vocab_size", "hidden_size", "intermediate_size", "max_position_embeddings"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")
        if not 1 <= self.num_hidden_layers <= _MOST_LAYERS:
            raise ValueError(
                f"num_hidden_layers {self.num_hidden_layers} must be 1 to {_MOST_LAYERS}"
            )
        if self.num_attention_heads < 1 or self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"{self.num_attention_heads} attention heads do not divide the width "
                f"{self.hidden_size}; choose a divisor"
            )


class Bert(nn.Module):
    """Embeddings and layers; those from ``fusion_layer`` on also attend to the video."""

    def __init__(self, config: BertArchitecture, fusion_layer: int, vision_dim: int) -> None:
        super().__init__()
        self.embeddings = _Embeddings(config)
        self.encoder = _Encoder(config, fusion_layer, vision_dim)


class BertLayer(nn.Module):
    """Self-attention, cross-attention where ``vision_dim`` is given, feed-forward."""

    def __init__(self, config: BertArchitecture, vision_dim: int | None) -> None:
        super().__init__()
        dim = config.hidden_size
        self.attention = _AttentionBlock(config, dim)
        self.crossattention = None if vision_dim is None else _AttentionBlock(config, vision_dim)
        self.intermediate = _Intermediate(config)
        self.output = _Output(config, config.intermediate_size)

    def project_vision(self, vision: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-attention keys and values (B, h, N, d) of video tokens (B, N, Dv)."""
        assert self.crossattention is not None
        return self.crossattention.self.project(vision)

    def forward(
        self,
        x: Tensor,
        mask: Tensor,
        vision: tuple[Tensor, Tensor] | None = None,
        vision_mask: Tensor | None = None,
    ) -> Tensor:
        """Apply the layer to (B, S, Dt); ``vision`` are keys and values of a fusion layer."""
        x = self.attention(x, self.attention.self.project(x), mask)
        if vision is not None:
            assert self.crossattention is not None
            x = self.crossattention(x, vision, vision_mask)
        out: Tensor = self.output(self.intermediate(x), x)
        return out


def project_for(layers: Sequence[BertLayer], vision: Tensor, mask: Tensor | None) -> VisionKV:
    """Project video tokens (B, N, Dv) for layers; mask (B, N), 1 or True = a real token."""
    keys, values = zip(*(layer.project_vision(vision) for layer in layers), strict=True)
    return VisionKV(keys, values, None if mask is None else mask.bool())


def fuse_through(
    layers: Sequence[BertLayer], states: Tensor, attention_mask: Tensor, vision: VisionKV
) -> Tensor:
    """Let captions (M, S, Dt) look at B videos in layers; see ``FusionEncoder.fuse``."""
    mask = expand_mask(attention_mask)
    vision_mask = None if vision.mask is None else expand_mask(vision.mask)
    for layer, key, value in zip(layers, vision.keys, vision.values, strict=True):
        states = layer(states, mask, (key, value), vision_mask)
    return states


def expand_mask(mask: Tensor) -> Tensor:
    """(B, S) to a bool mask that broadcasts over heads and queries."""
    return mask.bool()[:, None, None]


def initialise(module: nn.Module, std: float) -> None:
    """Draw the weights of linear layers and tables as BERT's are; biases are zero."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=std)
        if isinstance(part, nn.Linear):
            nn.init.zeros_(part.bias)


class MlmHead(nn.Module):
    """Everything between a state and the tied output matrix, which is the word embedding."""

    def __init__(self, config: BertArchitecture) -> None:
        super().__init__()
        self.predictions = _Predictions(config)

    def forward(self, states: Tensor, words: Tensor) -> Tensor:
        """Score the vocabulary, of vectors ``words`` (V, Dt), for states (..., Dt): (..., V)."""
        return F.linear(self.predictions.transform(states), words, self.predictions.bias)


class _Embeddings(nn.Module):
    def __init__(self, config: BertArchitecture) -> None:
        super().__init__()
        dim = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, dim, config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, dim)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, dim)
        self.LayerNorm = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: Tensor) -> Tensor:
        length, limit = input_ids.shape[1], self.position_embeddings.num_embeddings
        if length > limit:
            raise ValueError(f"captions of {length} tokens exceed the {limit} positions; cut them")
        x = self.word_embeddings(input_ids) + self.token_type_embeddings.weight[0]
        x = x + self.position_embeddings.weight[:length]
        out: Tensor = self.dropout(self.LayerNorm(x))
        return out


class _Encoder(nn.Module):
    def __init__(self, config: BertArchitecture, fusion_layer: int, vision_dim: int) -> None:
        super().__init__()
        self.layer = nn.ModuleList(
            BertLayer(config, None if i < fusion_layer else vision_dim)
            for i in range(config.num_hidden_layers)
        )

    def layers(self) -> list[BertLayer]:
        return cast(list[BertLayer], list(self.layer))


class _AttentionBlock(nn.Module):
    """Attention, residual and norm."""

    def __init__(self, config: BertArchitecture, source_dim: int) -> None:
        super().__init__()
        self.self = _Attention(config, source_dim)
        self.output = _Output(config, config.hidden_size)

    def forward(self, x: Tensor, source: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        out: Tensor = self.output(self.self(x, *source, mask), x)
        return out


class _Attention(nn.Module):
    def __init__(self, config: BertArchitecture, source_dim: int) -> None:
        super().__init__()
        dim = config.hidden_size
        self.num_heads: int = config.num_attention_heads
        self.dropout: float = config.attention_probs_dropout_prob
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(source_dim, dim)
        self.value = nn.Linear(source_dim, dim)

    def project(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, h, L, d) of what is looked at, (B, L, source_dim)."""
        return self._heads(self.key(source)), self._heads(self.value(source))

    def forward(self, x: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        query = self._heads(self.query(x))
        dropout = self.dropout if self.training else 0.0
        out = attention(query, key, value, mask, dropout)
        return out.transpose(1, 2).flatten(2)

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.num_heads, -1).transpose(1, 2)


class _Intermediate(nn.Module):
    def __init__(self, config: BertArchitecture) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.dense(x))


class _Output(nn.Module):
    """Projection, dropout, residual, norm."""

    def __init__(self, config: BertArchitecture, inner: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inner, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        out: Tensor = self.LayerNorm(self.dropout(self.dense(x)) + residual)
        return out


class _Predictions(nn.Module):
    def __init__(self, config: BertArchitecture) -> None:
        super().__init__()
        self.transform = _Transform(config)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))


class _Transform(nn.Module):
    def __init__(self, config: BertArchitecture) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.LayerNorm(F.gelu(self.dense(x)))
        return out
