import itertools

import pytest
import torch
import torch.nn.functional as F

from vmm.models.answer import AnswerModel
from vmm.models.bert import BertArchitecture
from vmm.models.text_encoder import BertTextEncoder
from vmm.models.videomamba import VideoMamba
from vmm.types import TextTokens

QUESTIONS = ["what colour is it?", "what happens", "what shape is the large thing on the left?"]
ANSWERS = ["red", "green", "moves up", "moves down", "moves to the left", "moves to the right"]


def text_encoder(root, vision_dim=32, fusion_layer=1):
    return BertTextEncoder(
        vision_dim, str(root / "recipes/encoders/bert_demo"), fusion_layer, pretrained=False
    )


@pytest.fixture
def model(root):
    torch.manual_seed(1)
    encoder = VideoMamba(embed_dim=32, depth=1, num_frames=2, image_size=32)
    model = AnswerModel(encoder, text_encoder(root))
    for parameter in model.parameters():  # sharper than at the start, so that answers differ
        parameter.data *= 1.5
    return model.eval()


@pytest.fixture
def questions(model):
    video = torch.randn(len(QUESTIONS), 2, 3, 32, 32)
    with torch.no_grad():
        return model.read(model.text_encoder.tokenize(QUESTIONS), model.see(video))


def brute_force(model, questions, texts):
    """Log-probabilities (Q, K), one answer and one word at a time, from the whole softmax."""
    scores = torch.zeros(len(QUESTIONS), len(texts))
    for k, text in enumerate(texts):
        ids = model.text_encoder.tokenize([text]).input_ids
        for q in range(len(QUESTIONS)):
            one = questions[torch.tensor([q])]
            for place in range(1, ids.shape[1]):
                logits = model.answer_decoder(ids[:, :place], one)[0, -1]
                scores[q, k] += F.log_softmax(logits, -1)[ids[0, place]]
    return scores


@torch.no_grad()
def test_ranking_everything_is_scoring_everything(model, questions):
    expected = brute_force(model, questions, ANSWERS)
    ranked = model.rank(questions, model.answer_list(ANSWERS), k=99, at_once=2)
    for row, ranking in zip(expected, ranked, strict=True):
        assert ranking.answers.tolist() == row.argsort(descending=True).tolist()
        torch.testing.assert_close(ranking.scores, row.sort(descending=True)[0])
        assert ranking.scored == len(ANSWERS)


@torch.no_grad()
@pytest.mark.parametrize("at_once", [1, 3, 128])
def test_the_best_answers_are_those_of_the_whole_list(model, questions, at_once):
    texts = [" ".join(p) for n in (1, 2) for p in itertools.permutations(["red", "up", "bar"], n)]
    expected = brute_force(model, questions, texts)
    for k in (1, 3):
        ranked = model.rank(questions, model.answer_list(texts), k, at_once)
        for row, ranking in zip(expected, ranked, strict=True):
            assert ranking.answers.tolist() == row.argsort(descending=True)[:k].tolist()


@torch.no_grad()
def test_an_answer_whose_first_word_is_unlikely_is_found(model, questions, monkeypatch):
    """Choosing candidates by their first words, as published, would lose it."""
    likely = {"red": 0.6, "green": 0.4}  # but then nothing may follow "red"
    ids = {w: model.text_encoder.tokenize([w]).input_ids[0, 1].item() for w in likely}
    end = model.text_encoder.tokenize(["red"]).input_ids[0, 2].item()

    def scripted(input_ids, questions):
        logits = torch.full((*input_ids.shape, model.text_encoder.vocab_size), -20.0)
        for word, p in likely.items():
            logits[:, 0, ids[word]] = torch.tensor(p).log()
        if input_ids.shape[1] > 1:
            ends = torch.where(input_ids[:, 1] == ids["red"], -3.0, 0.0)
            logits[:, 1, end] = ends
            logits[:, 1, 5] = torch.log1p(-ends.exp().clamp(max=1 - 1e-6))
        return logits

    monkeypatch.setattr(model.answer_decoder, "forward", scripted)
    ranking = model.rank(questions, model.answer_list(["red", "green"]), k=1, at_once=1)[0]
    assert ranking.answers.tolist() == [1] and ranking.scored == 2


@torch.no_grad()
def test_what_cannot_win_is_not_scored(model, questions, monkeypatch):
    answers = model.answer_list(ANSWERS)
    ids = answers.tokens.input_ids

    def certain(input_ids, questions):
        logits = torch.full((*input_ids.shape, model.text_encoder.vocab_size), -20.0)
        follows = ids[0, 1 : 1 + input_ids.shape[1]]  # "red", [SEP], whatever was said before
        places = torch.arange(len(follows))
        logits[:, places, follows] = 20.0
        return logits

    monkeypatch.setattr(model.answer_decoder, "forward", certain)
    ranking = model.rank(questions, answers, k=1, at_once=1)[0]
    assert ranking.answers.tolist() == [0] and ranking.scored == 1


@torch.no_grad()
def test_equal_answers_stand_in_the_order_of_the_list(model, questions):
    answers = model.answer_list(["moves up", "red", "Moves up!", "moves, up"])
    for at_once in (1, 128):
        for ranking in model.rank(questions, answers, k=4, at_once=at_once):
            equal = [a for a in ranking.answers.tolist() if a != 1]
            assert equal == [0, 2, 3]


@torch.no_grad()
def test_padding_changes_no_score(model, questions):
    tokens = model.text_encoder.tokenize(["red"])
    alone = model.log_likelihood(tokens, questions[torch.tensor([0])])
    wide = TextTokens(F.pad(tokens.input_ids, (0, 4)), F.pad(tokens.attention_mask, (0, 4)))
    padded = model.log_likelihood(wide, questions[torch.tensor([0])])
    torch.testing.assert_close(padded, alone)
    filled = wide.input_ids.clone()
    filled[:, 3:] = 7  # what stands in the padding is never read
    other = model.log_likelihood(
        TextTokens(filled, wide.attention_mask), questions[torch.tensor([0])]
    )
    torch.testing.assert_close(other, alone)


@torch.no_grad()
def test_a_question_is_read_alike_alone_and_beside_longer_ones(model):
    video = torch.randn(3, 2, 3, 32, 32)
    answers = model.text_encoder.tokenize(["moves up"])
    three = TextTokens(*(x.expand(3, -1) for x in answers))
    vision = model.see(video)
    together = model.log_likelihood(
        three, model.read(model.text_encoder.tokenize(QUESTIONS), vision)
    )
    for i, question in enumerate(QUESTIONS):
        one = model.read(model.text_encoder.tokenize([question]), vision[torch.tensor([i])])
        alone = model.log_likelihood(answers, one)[0]
        torch.testing.assert_close(alone, together[i], atol=0, rtol=1e-5)  # other sums, other order


@torch.no_grad()
def test_answers_depend_on_the_video_and_on_the_question(model, questions):
    tokens = TextTokens(*(x.expand(3, -1) for x in model.text_encoder.tokenize(["red"])))
    before = model.log_likelihood(tokens, questions)
    video = torch.randn(len(QUESTIONS), 2, 3, 32, 32)
    other = model.read(model.text_encoder.tokenize(QUESTIONS), model.see(video))
    assert (model.log_likelihood(tokens, other) - before).abs().min() > 1e-6
    assert before.unique().numel() == 3


@torch.no_grad()
def test_no_word_sees_what_comes_after_it(model, questions):
    ids = model.text_encoder.tokenize(["moves to the left"]).input_ids
    one = questions[torch.tensor([0])]
    before = model.answer_decoder(ids, one)
    ids[0, 3] = 9
    after = model.answer_decoder(ids, one)
    torch.testing.assert_close(after[:, :3], before[:, :3])
    assert not torch.allclose(after[:, 3:], before[:, 3:])


@pytest.mark.parametrize(("vision_dim", "fresh"), [(32, 8), (128, 0)])
def test_the_decoder_starts_from_the_fusion_layers(root, vision_dim, fresh):
    torch.manual_seed(0)
    encoder = VideoMamba(embed_dim=vision_dim, depth=1, num_frames=2, image_size=32)
    text = text_encoder(root, vision_dim)
    decoder = AnswerModel(encoder, text).answer_decoder
    report = decoder.start_from(text)
    assert len(report.new) == fresh and not report.dropped
    for number, layer in enumerate(decoder.bert.encoder.layers()):
        source = text.bert.encoder.layers()[1 + number]
        assert torch.equal(layer.output.dense.weight, source.output.dense.weight)
        query = layer.crossattention.self.query.weight
        assert torch.equal(query, source.crossattention.self.query.weight)
        key, theirs = (x.crossattention.self.key.weight for x in (layer, source))
        assert key.shape == (128, 128) and torch.equal(key, theirs) == (fresh == 0)
    words = text.bert.embeddings.word_embeddings.weight
    assert torch.equal(decoder.bert.embeddings.word_embeddings.weight, words)
    assert torch.equal(decoder.cls.predictions.bias, text.cls.predictions.bias)
    words.data.zero_()  # copied, not shared
    assert decoder.bert.embeddings.word_embeddings.weight.abs().sum() > 0


def test_what_cannot_be(root, model, questions):
    with pytest.raises(ValueError, match="no layer that looks at a video"):
        encoder = VideoMamba(embed_dim=32, depth=1, num_frames=2, image_size=32)
        sizes = BertArchitecture(vocab_size=135, hidden_size=16, num_hidden_layers=1,
                                 num_attention_heads=2, intermediate_size=16,
                                 max_position_embeddings=40)  # fmt: skip
        AnswerModel(encoder, BertTextEncoder(32, "x", None, architecture=sizes))
    with pytest.raises(ValueError, match="list of answers is empty"):
        model.answer_list([])
    with pytest.raises(ValueError, match="at least 1"):
        model.rank(questions, model.answer_list(["red"]), k=0)
    model.answer_decoder.bert.embeddings.word_embeddings.weight.data[7] = torch.nan
    with pytest.raises(ValueError, match="answer decoder gives NaN or infinity"):
        model.rank(questions, model.answer_list(["red"]))
