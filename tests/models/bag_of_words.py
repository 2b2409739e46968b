"""A text encoder that is no BERT and looks at no video: the smallest one that trains."""

import zlib

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from vmm.models.text_interface import TextEncoder
from vmm.types import TextTokens


class BagOfWords(TextEncoder):
    """The mean of the words' vectors; a word's number is its hash."""

    def __init__(
        self, vision_dim: int, embed_dim: int = 16, buckets: int = 1000, max_words: int = 16
    ) -> None:
        super().__init__(vision_dim, embed_dim, buckets, max_words)
        self.words = nn.Embedding(buckets, embed_dim, padding_idx=0)

    def tokenize(self, texts: list[str], device: torch.device | str = "cpu") -> TextTokens:
        cut = [text.lower().split()[: self.max_words] for text in texts]
        rows = [[1 + zlib.crc32(w.encode()) % (self.vocab_size - 1) for w in row] for row in cut]
        ids = pad_sequence([torch.tensor(row, dtype=torch.int64) for row in rows], True).to(device)
        return TextTokens(ids, (ids > 0).long())

    def encode(self, tokens: TextTokens) -> torch.Tensor:
        return self.words(tokens.input_ids)

    def pool(self, states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return states.sum(1) / attention_mask.sum(1, keepdim=True).clamp(min=1)
