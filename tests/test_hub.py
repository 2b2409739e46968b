import socket

import pytest
from huggingface_hub import constants, hf_hub_download

from vmm.hub import expect_network


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
