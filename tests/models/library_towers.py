"""Small models of transformers with random weights and a tokenizer of words, as local folders."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

WORDS = ["a", "red", "blue", "green", "circle", "bar", "moves", "to", "the", "left", "right"]
WORDS += ["up", "grows", "small", "large"]
MARKS = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}


def write_tokenizer(folder, words=WORDS, marks=MARKS):
    """A tokenizer of whole words; the marks come first."""
    vocabulary = {word: number for number, word in enumerate([*marks.values(), *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, marks["unk"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(marks[mark], vocabulary[marks[mark]]) for mark in ("cls", "sep")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{marks['cls']} $A {marks['sep']}", special_tokens=ends
    )
    named = {f"{mark}_token": word for mark, word in marks.items()}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(folder)
    return len(vocabulary)


def write_tower(folder, family="roberta", words=WORDS, **changes):
    """A whole model: configuration, tokenizer, weights that make captions differ."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {
        "vocab_size": write_tokenizer(folder, words),
        "hidden_size": 32,
        "embedding_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 40,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "cls_token_id": 0,
        "sep_token_id": 2,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModel.from_config(AutoConfig.for_model(family, **sizes | changes))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(folder)
    return folder
