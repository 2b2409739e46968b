"""Open questions about a video: a question encoder that sees it, a decoder that writes the answer.

The question goes through the text encoder, whose fusion layers look at the video; a decoder of the
size of the fusion layers looks at the question's states and says the answer word by word, as in
ALBEF (arXiv 2107.07651, section 4.3) and UMT (arXiv 2303.16058). Shape legend: see ``vmm.types``;
Dt text width, M answers, A words of an answer, K answers of a list.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vmm.models.bert import Bert, MlmHead, initialise
from vmm.models.text_encoder import BertTextEncoder
from vmm.models.text_interface import TextEncoder, VisionKV
from vmm.models.video_encoder import VideoEncoder
from vmm.models.weights import KeyReport, load_accounted
from vmm.types import TextTokens


class AnswerList(NamedTuple):
    """The answers among which that of a question is sought."""

    texts: list[str]
    """K answers."""
    tokens: TextTokens
    """Two times (K, 1 + A): [CLS], the words, [SEP], padding."""


class Ranking(NamedTuple):
    """The best answers to a question."""

    answers: Tensor
    """(k,) int64, places in the list, the best first."""
    scores: Tensor
    """(k,) float32, log-probabilities of these answers, natural logarithm."""
    scored: int
    """Answers that were scored to find them."""


class AnswerDecoder(nn.Module):
    """A causal BERT whose layers all look at the states of a question.

    Args:
        text_encoder: Its fusion layers, embeddings and word head say the sizes, and are the start
            weights, see ``start_from``.

    Raises:
        ValueError: If the text encoder has no fusion layer.
    """

    def __init__(self, text_encoder: BertTextEncoder) -> None:
        super().__init__()
        depth = text_encoder.architecture.num_hidden_layers - text_encoder.fusion_layer
        if depth < 1:
            raise ValueError(
                f"the text encoder {text_encoder.name} has no layer that looks at a video; give "
                "it a fusion_layer below its number of layers"
            )
        config = replace(text_encoder.architecture, num_hidden_layers=depth)
        # The published decoder wants question states of the video's width, not the text's.
        self.bert = Bert(config, 0, config.hidden_size)
        self.cls = MlmHead(config)
        initialise(self, config.initializer_range)

    def start_from(self, text_encoder: BertTextEncoder) -> KeyReport:
        """Copy the weights of a text encoder's fusion layers, embeddings and word head.

        Keys and values of the cross-attention read video tokens there and question states here;
        as published they are copied where both have the same width.
        """
        first = text_encoder.fusion_layer
        state = {}
        for key, value in text_encoder.state_dict().items():
            head, found, rest = key.partition("encoder.layer.")
            if found:
                number, _, inner = rest.partition(".")
                if int(number) < first:
                    continue
                key = f"{head}{found}{int(number) - first}.{inner}"
            state[key] = value
        new = {}
        if text_encoder.vision_dim != text_encoder.embed_dim:
            source = r"crossattention\.self\.(key|value)\."
            new[source] = "question states are of another width than video tokens"
            state = {
                key: value
                for key, value in state.items()
                if ".crossattention.self.key." not in key
                and ".crossattention.self.value." not in key
            }
        return load_accounted(self, state, "the text encoder", new, {})

    def project_question(self, states: Tensor, attention_mask: Tensor) -> VisionKV:
        """Project the states of questions (B, S, Dt) once for all answers they will meet.

        Args:
            states: From ``AnswerModel.read``.
            attention_mask: (B, S), 1 = a real token.
        """
        pairs = [layer.project_vision(states) for layer in self.bert.encoder.layers()]
        keys, values = zip(*pairs, strict=True)
        return VisionKV(keys, values, attention_mask.bool())

    def forward(self, input_ids: Tensor, questions: VisionKV) -> Tensor:
        """Guess each next word of answers: answer i is one to question i modulo B.

        Padding after the words changes nothing before it, since no position looks ahead.

        Args:
            input_ids: (M, A) int64, [CLS] first; M is a multiple of B.
            questions: B questions from ``project_question``.

        Returns:
            (M, A, vocabulary) logits of the word after each position.
        """
        length = input_ids.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=input_ids.device).tril()
        mask = None if questions.mask is None else questions.mask[:, None, None]
        states: Tensor = self.bert.embeddings(input_ids)
        layers = zip(self.bert.encoder.layers(), questions.keys, questions.values, strict=True)
        for layer, key, value in layers:
            states = layer(states, causal[None, None], (key, value), mask)
        logits: Tensor = self.cls(states, self.bert.embeddings.word_embeddings.weight)
        return logits


class AnswerModel(nn.Module):
    """Video encoder, question encoder and answer decoder.

    Args:
        video_encoder: Any video encoder.
        text_encoder: A BERT whose fusion layers accept this video encoder's width.

    Raises:
        ValueError: If the text encoder is no BERT, or has no fusion layer.
    """

    def __init__(self, video_encoder: VideoEncoder, text_encoder: TextEncoder) -> None:
        super().__init__()
        if not isinstance(text_encoder, BertTextEncoder):
            raise ValueError(
                f"the answer decoder is made of a BERT, and {type(text_encoder).__name__} is none; "
                "name vmm.models.text_encoder.BertTextEncoder"
            )
        self.video_encoder = video_encoder
        self.text_encoder = text_encoder
        self.answer_decoder = AnswerDecoder(text_encoder)
        self.text_encoder.cls.requires_grad_(False)  # the decoder has a head of its own

    def read(self, questions: TextTokens, vision: VisionKV) -> VisionKV:
        """Read questions with videos in view: question i with video i modulo B.

        Args:
            questions: M questions, a multiple of B.
            vision: B videos from ``text_encoder.project_vision``.

        Returns:
            What the decoder looks at.
        """
        states = self.text_encoder.encode(questions)
        states = self.text_encoder.fuse(states, questions.attention_mask, vision)
        return self.answer_decoder.project_question(states, questions.attention_mask)

    def see(self, video: Tensor) -> VisionKV:
        """Encode clips (B, T, C, H, W) as the question encoder looks at them."""
        return self.text_encoder.project_vision(self.video_encoder(video).tokens)

    def answer_list(self, answers: list[str]) -> AnswerList:
        """Tokenise the answers among which to rank.

        Raises:
            ValueError: If there is none.
        """
        if not answers:
            raise ValueError("the list of answers is empty; there is nothing to choose from")
        device = next(self.parameters()).device
        return AnswerList(answers, self.text_encoder.tokenize(answers, device))

    def log_likelihood(self, tokens: TextTokens, questions: VisionKV) -> Tensor:
        """Score whole answers: answer i to question i modulo B.

        Args:
            tokens: M answers, [CLS] first; a multiple of B.
            questions: B questions from ``read``.

        Returns:
            (M,) float32, the log-probability of the words and the [SEP] after the [CLS], each
            counted once.
        """
        labels, kept = tokens.input_ids[:, 1:], tokens.attention_mask[:, 1:].bool()
        logits = self.answer_decoder(tokens.input_ids[:, :-1], questions).float()
        words = -F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
        return words.masked_fill(~kept, 0.0).sum(1)

    @torch.no_grad()
    def rank(
        self, questions: VisionKV, answers: AnswerList, k: int = 1, at_once: int = 128
    ) -> list[Ranking]:
        """Find the ``k`` most probable answers of a list to each question, exactly.

        An answer is at most as probable as its first word. So answers are scored in the order of
        their first words' probability, ``at_once`` at a time, until the ``k`` best are beyond
        what any of the others could reach: the result is that of scoring the whole list.

        Args:
            questions: B questions from ``read``.
            answers: The list.
            k: How many to find; fewer if the list is shorter.
            at_once: Answers that are in memory together.

        Raises:
            ValueError: If ``k`` or ``at_once`` is below 1, or the decoder's output is no number.
        """
        if min(k, at_once) < 1:
            raise ValueError(f"k {k} and at_once {at_once} must be at least 1")
        count, ids = len(questions.keys[0]), answers.tokens.input_ids
        first = self.answer_decoder(ids[:1, :1].expand(count, 1), questions)[:, 0]
        bounds = first.float().log_softmax(-1)[:, ids[:, 1]]  # (B, K)
        if not bool(bounds.isfinite().all()):  # NaN would be sorted as the best
            raise ValueError("the answer decoder gives NaN or infinity: its weights are broken")
        return [
            self._rank_one(
                questions[torch.tensor([i], device=ids.device)], answers, row, k, at_once
            )
            for i, row in enumerate(bounds)
        ]

    def _rank_one(
        self, question: VisionKV, answers: AnswerList, bounds: Tensor, k: int, at_once: int
    ) -> Ranking:
        """Rank for a single question; ``bounds`` (K,) are above the scores."""
        bounds, order = bounds.sort(descending=True, stable=True)
        k = min(k, len(order))
        best = bounds.new_full((0,), 0.0)
        places = order[:0]
        done = 0
        while done < len(order):
            # Rounding may lift a score a little above its bound.
            if len(best) == k and best[-1] > bounds[done] + 1e-4:
                break
            part = order[done : done + at_once]
            tokens = TextTokens(*(x.index_select(0, part) for x in answers.tokens))
            scores = self.log_likelihood(_trimmed(tokens), question)
            scores, places = torch.cat([best, scores]), torch.cat([places, part])
            # Equal scores in the order of the list, whatever the order of scoring was.
            by_place = places.argsort()
            chosen = by_place[scores[by_place].argsort(descending=True, stable=True)[:k]]
            best, places = scores[chosen], places[chosen]
            done += len(part)
        return Ranking(places, best, done)


def _trimmed(tokens: TextTokens) -> TextTokens:
    """Cut off columns that are padding in all rows."""
    length = int(tokens.attention_mask.sum(1).max())
    return TextTokens(tokens.input_ids[:, :length], tokens.attention_mask[:, :length])
