import logging
import socket

import pytest
from huggingface_hub import constants, hf_hub_download
from torch import nn

from vmm.evaluation.common.models import OpenClipEncoder, SentenceTransformerEncoder
from vmm.hub import asking_hub, expect_network, local_folder
from vmm.models.checkpoints import load_published
from vmm.models.clip_tower import read_text
from vmm.models.image_weights import load_image_weights
from vmm.models.library_files import (
    load_library_model,
    read_configuration,
    read_library_weights,
    read_tokenizer,
)
from vmm.models.open_clip_tokenizer import Tokenizer

NAME = "somebody/something"
READERS = {
    "encoder folder": ("transformers", lambda: local_folder(NAME)),
    "published checkpoint": ("transformers", lambda: load_published(f"{NAME}:weights.pth")),
    "configuration": ("transformers", lambda: read_configuration(NAME, "it")),
    "model": ("transformers", lambda: load_library_model(NAME, None, "it")),
    "weights": ("transformers", lambda: read_library_weights(NAME, "it")),
    "tokenizer": ("transformers", lambda: read_tokenizer(NAME, 1)),
    "open_clip tower": ("open_clip", lambda: read_text("ViT-B-32", "laion2b_s34b_b79k")),
    "open_clip tokenizer": ("open_clip", lambda: Tokenizer({"hf_tokenizer_name": NAME}, 8, None)),
    "open_clip model": (
        "open_clip",
        lambda: OpenClipEncoder("ViT-B-32", "laion2b_s34b_b79k", 1, "cpu"),
    ),
    "timm model": ("timm", lambda: load_image_weights(nn.Module(), "vit_tiny_patch16_224", False)),
    "sentence-transformers": (
        "sentence_transformers",
        lambda: SentenceTransformerEncoder(NAME, 1, 32, "cpu", False),
    ),
}
"""Package that it needs, and how it is read."""


def nobody(*_address):
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@pytest.fixture(autouse=True)
def online(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_without_a_network_the_hub_is_not_asked_again_and_again(monkeypatch, caplog):
    asked = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address: asked.append(address) or nobody())
    expect_network()
    expect_network()
    assert constants.HF_HUB_OFFLINE
    assert asked == [("huggingface.co", None)]
    assert caplog.messages == [
        "there is no network to huggingface.co: only what was fetched before is found"
    ]
    with pytest.raises(OSError, match="cannot find the requested files"):
        hf_hub_download("somebody/something", "config.json")
    assert len(asked) == 1


def test_with_a_network_it_is_asked(monkeypatch, caplog):
    def knows_no_services(_host, port):
        if isinstance(port, str):  # python:3-slim, for one
            raise socket.gaierror(socket.EAI_SERVICE, "Servname not supported")
        return []

    monkeypatch.setattr(socket, "getaddrinfo", knows_no_services)
    expect_network()
    assert not constants.HF_HUB_OFFLINE
    assert not caplog.messages


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "ALL_PROXY"])
def test_a_proxy_may_know_what_this_machine_does_not(monkeypatch, variable):
    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    monkeypatch.setenv(variable, "http://proxy:3128")
    expect_network()
    assert not constants.HF_HUB_OFFLINE


@pytest.mark.parametrize("package, read", READERS.values(), ids=READERS)
def test_whatever_reads_the_hub_says_that_there_is_no_network(monkeypatch, caplog, package, read):
    pytest.importorskip(package)
    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    monkeypatch.setattr("time.sleep", lambda _seconds: None)  # between tries, if there were any
    with pytest.raises(ValueError):
        read()
    assert "there is no network to huggingface.co" in caplog.text


def test_what_a_library_logs_and_raises_is_said_once(monkeypatch, caplog):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [])
    with pytest.raises(OSError, match="no weights"), asking_hub():
        logging.warning("they are old")
        logging.error("no weights")
        raise OSError("no weights")
    logging.error("later")
    assert caplog.messages == ["they are old", "later"]
