"""The application as uvicorn would call it, without a socket; test_command.py has one."""

import asyncio
import json
import time
from contextlib import asynccontextmanager

import httpx
import numpy as np
import pytest

from tests.data import videos
from tests.data.videos import encode_video, moving_picture
from tests.serving.plain import PlainBackend
from vmm.export.encoder import VideoTextEncoder
from vmm.serving.app import Service, make_app
from vmm.serving.backends import open_backend
from vmm.serving.gate import Limits

PLAIN = PlainBackend()
TEXTS = ["a red circle", "circle moves left", "a"]


@pytest.fixture(scope="module")
def film():
    return videos.make("h264")


@pytest.fixture(scope="module")
def backends(request):
    folders = {"torch": "encoder_folder", "onnx": "onnx_folder"}
    return lambda name: open_backend(str(request.getfixturevalue(folders[name])))


@pytest.fixture(scope="module")
def encoder(encoder_folder):
    return VideoTextEncoder.from_pretrained(encoder_folder, tune=False)


@asynccontextmanager
async def client_of(backend, **limits):
    limits = {"timeout": 600, **limits}  # the machine may be busy
    service = Service(backend, Limits(**limits), decoders=2)
    app = make_app(service)
    transport = httpx.ASGITransport(app)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://served") as client:
            client.service, client.app = service, app
            yield client
    finally:
        await asyncio.to_thread(service.close)


def ask(backend, *requests, **limits):
    """Send requests at once; give their answers in order."""

    async def run():
        async with client_of(backend, **limits) as client:
            return await asyncio.gather(*(client.request(*r[:2], **r[2]) for r in requests))

    return asyncio.run(run())


def refused(answer, status, *words):
    """The answer is one sentence of JSON, and says some words."""
    assert answer.status_code == status, answer.text
    content = answer.json()
    assert set(content) == {"error"} and "\n" not in content["error"]
    assert answer.headers["content-type"] == "application/json"
    for word in words:
        assert word in content["error"]


@pytest.mark.parametrize("name", ["torch", "onnx"])
def test_vectors_are_those_of_the_encoder(backends, encoder, film, name):
    other = encode_video(moving_picture(9, 40, 56, seed=3))
    raw = {"content": film, "headers": {"content-type": "video/mp4"}}
    backend = backends(name)
    answers = ask(
        backend,
        ("POST", "/text", {"json": {"texts": TEXTS}}),
        ("POST", "/text", {"json": {"texts": TEXTS[1:2]}}),
        ("POST", "/video", raw),
        ("POST", "/video", {"files": {"file": ("any/../name", other, "x/y")}}),
        ("POST", "/score", {"params": {"text": TEXTS}, **raw}),
    )
    assert [answer.status_code for answer in answers] == [200] * 5
    texts, alone, video, uploaded, score = (answer.json() for answer in answers)
    want, wanted = encoder.encode_text(TEXTS), encoder.encode_video([film, other])
    np.testing.assert_allclose(texts["vectors"], want, atol=1e-5)
    np.testing.assert_allclose(alone["vectors"], want[1:2], atol=1e-5)
    np.testing.assert_allclose(video["vector"], wanted[0], atol=1e-5)
    np.testing.assert_allclose(uploaded["vector"], wanted[1], atol=1e-5)
    np.testing.assert_allclose(score["scores"], want @ wanted[0], atol=1e-5)
    prints = {answer["fingerprint"] for answer in (texts, alone, video, uploaded, score)}
    assert prints == {backend.fingerprint}
    assert (encoder.fingerprint in prints) == (name == "torch")


def test_vectors_over_time_and_the_matching_head(backends, encoder, film):
    body = {"content": film, "headers": {"content-type": "application/octet-stream"}}
    frames, mixture, matching = ask(
        backends("torch"),
        ("POST", "/video?per_frame=true", body),
        ("POST", "/score", {"params": {"text": TEXTS, "by": "mixture"}, **body}),
        ("POST", "/score", {"params": {"text": TEXTS, "by": "matching"}, **body}),
    )
    found = frames.json()
    per_frame = np.array(found["per_frame"])
    assert per_frame.shape == (4, 8) and len(found["seconds"]) == 4
    assert found["seconds"] == sorted(set(found["seconds"]))
    np.testing.assert_allclose(np.linalg.norm(per_frame, axis=1), 1, atol=1e-5)
    mean = per_frame.mean(0)
    np.testing.assert_allclose(mean / np.linalg.norm(mean), found["vector"], atol=1e-5)
    for by, answer in (("mixture", mixture), ("matching", matching)):
        want = encoder.score_all(TEXTS, [film], by=by)[:, 0]
        np.testing.assert_allclose(answer.json()["scores"], want, atol=1e-4)


def test_what_is_served_and_how_it_goes():
    bad = ("POST", "/text", {"json": {"texts": []}})

    async def run():
        async with client_of(PLAIN, max_seconds=7.0) as client:
            await asyncio.gather(*(client.post("/text", json={"texts": ["a"]}) for _ in range(4)))
            await client.request(*bad[:2], **bad[2])
            return [await client.get(path) for path in ("/health", "/model", "/openapi.json")]

    health, model, schema = (answer.json() for answer in asyncio.run(run()))
    assert health["answered"] == {"200": 4, "422": 1} and health["waiting"] == 0
    assert health["items"] == 4
    assert model["backend"] == "plain" and model["scores"] == ["cosine"]
    assert model["limits"]["max_seconds"] == 7.0 and model["embedding_dim"] == 3
    assert set(schema["paths"]) == {"/text", "/video", "/score", "/health", "/model"}


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("path", "request_", "status", "words"),
    [
        ("/text", {"content": b"{", "headers": JSON}, 422, ["no JSON"]),
        ("/text", {"content": b"[" * 100_000, "headers": JSON}, 422, ["no JSON"]),
        ("/text", {"content": b'"a"', "headers": JSON}, 422, ['{"texts"']),
        ("/text", {"json": {"texts": "a"}}, 422, ["a list of captions"]),
        ("/text", {"json": {"texts": [1]}}, 422, ["a list of captions"]),
        ("/text", {"json": {"texts": []}}, 422, ["0 captions", "1 to 3"]),
        ("/text", {"json": {"texts": ["a"] * 4}}, 422, ["4 captions"]),
        ("/text", {"json": {"texts": ["a" * 51]}}, 422, ["51 characters", "50"]),
        ("/text", {"content": b"a"}, 415, ["application/json"]),
        ("/video", {"content": b"no video"}, 422, ["no video that can be used"]),
        ("/video", {"content": b""}, 422, ["empty"]),
        ("/video", {"json": {"path": "/etc/passwd"}}, 415, ["the video itself"]),
        ("/video", {"data": {"url": "http://a"}}, 415, ["the video itself"]),
        ("/video", {"files": {"other": b"x"}}, 422, ["`file`"]),
        ("/video", {"files": [("file", b"x"), ("file", b"y")]}, 422, ["form cannot", "files"]),
        ("/video?per_frame=maybe", {"content": b"x"}, 422, ["per_frame"]),
        ("/score", {"content": b"x"}, 422, ["text"]),
        ("/score?text=a&by=luck", {"content": b"x"}, 422, ["by", "cosine"]),
        ("/score?text=a&by=mixture", {"content": b"x"}, 422, ["matching head", "by=cosine"]),
        ("/video?per_frame=1", {"content": b"x"}, 422, ["one vector"]),
        ("/video", {"content": b"x" * 200_001}, 413, ["0.2 MB"]),
        ("/text", {"content": b"x" * 200_001, "headers": JSON}, 413, ["0.2 MB"]),
        ("/nowhere", {"content": b"x"}, 404, ["no /nowhere", "POST /text", "GET /health"]),
        ("/health", {"content": b"x"}, 405, ["/health takes GET, not POST"]),
        ("/video?per_frames=1", {"content": b"x"}, 422, ["no parameter 'per_frames'", "per_frame"]),
        ("/score?text=a&texts=b", {"content": b"x"}, 422, ["'texts'", "text, by"]),
        ("/text?n=1", {"json": {"texts": ["a"]}}, 422, ["no parameter 'n'", "known are: none"]),
        ("/text", {"json": {"texts": ["a"], "more": 1}}, 422, ["no field 'more'", "texts"]),
    ],
)
def test_bad_requests_are_refused_in_a_sentence(path, request_, status, words):
    limits = {"max_body": 200_000, "max_texts": 3, "max_characters": 50}
    (answer,) = ask(PLAIN, ("POST", path, request_), **limits)
    refused(answer, status, *words)


def test_an_address_or_a_path_is_never_opened(tmp_path, film):
    (tmp_path / "film.mp4").write_bytes(film)
    for name in (tmp_path / "film.mp4", f"file://{tmp_path}/film.mp4", "http://127.0.0.1:1/"):
        raw, form = ask(
            PLAIN,
            ("POST", "/video", {"content": str(name).encode()}),
            ("POST", "/video", {"files": {"file": (str(name), str(name).encode(), "video/mp4")}}),
        )
        refused(raw, 422, "no video")
        refused(form, 422, "no video")


def test_long_and_large_videos_are_refused_and_the_decoder_lives_on():
    long = encode_video(moving_picture(40), rate=10)  # 4 s
    wide = encode_video(moving_picture(3, 200, 300))

    async def run():
        async with client_of(PLAIN, max_seconds=3.0, max_pixels=50_000) as client:
            answers = [await client.post("/video", content=film) for film in (long, wide, long)]
            (decoder,) = client.service.reader._decoders[:1]
            alive = decoder._child.poll() is None
            return answers, alive

    (first, size, again), alive = asyncio.run(run())
    refused(first, 422, "too long", "4.0 s", "3 s")
    refused(size, 422, "pixels")
    refused(again, 422, "too long")
    assert alive


def test_too_many_requests_wait_for_nobody(film):
    request = ("POST", "/video", {"content": film})
    answers = ask(PLAIN, *[request] * 6, max_requests=2)
    taken = [answer for answer in answers if answer.status_code == 200]
    assert len(taken) == 2
    for answer in answers:
        if answer.status_code != 200:
            refused(answer, 503, "2 requests are waiting")
            assert answer.headers["retry-after"] == "1"
    answers = ask(PLAIN, *[request] * 3, max_per_client=1)
    assert sorted(answer.status_code for answer in answers) == [200, 429, 429]
    refused(max(answers, key=lambda a: a.status_code), 429, "1 requests of yours")


def test_what_takes_too_long_is_given_up(film):
    async def late():
        yield film[:100]
        await asyncio.sleep(0.5)
        yield film[100:]

    async def run():
        async with client_of(PLAIN, timeout=0.2) as client:
            upload = await client.post("/video", content=late())
            batcher = client.service.batcher
            batcher._compute["sleep"] = lambda items: [time.sleep(0.6)] * len(items)
            batcher.submit("sleep", None)
            return upload, await client.post("/text", json={"texts": ["a"]})

    upload, answer = asyncio.run(run())
    refused(upload, 408, "the upload took more than 0.2 s")
    refused(answer, 503, "no answer within 0.2 s")


def test_a_client_that_goes_away_is_no_defect(caplog):
    async def gone():
        return {"type": "http.disconnect"}

    async def send(message):
        raise AssertionError(message)

    async def run():
        async with client_of(PLAIN) as client:
            scope = {"type": "http", "method": "POST", "path": "/video", "headers": []}
            scope |= {"query_string": b"", "http_version": "1.1", "client": ("a", 1)}
            await client.app(scope, gone, send)
            return client.app.waiting

    assert asyncio.run(run()) == 0 and caplog.text == ""


def test_uploads_of_all_clients_together_are_bounded():
    async def halting(gate, opened):
        yield b"x" * 90_000
        opened.append(1)
        await gate.wait()

    async def run():
        async with client_of(PLAIN, max_body=100_000) as client:
            gate, opened = asyncio.Event(), []
            asked = [
                asyncio.create_task(client.post("/video", content=halting(gate, opened)))
                for _ in range(10)
            ]
            while client.app._held < 800_000 and len(opened) < 10:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            held = client.app._held
            gate.set()
            answers = await asyncio.gather(*asked)
            return held, answers, client.app._held

    held, answers, after = asyncio.run(run())
    assert held <= 890_000 and after == 0
    codes = [answer.status_code for answer in answers]
    assert set(codes) == {422, 503} and codes.count(503) >= 1


def test_a_defect_is_one_sentence_and_a_trace_in_the_log(caplog):
    async def run():
        async with client_of(PLAIN) as client:
            client.service.batcher._compute["text"] = lambda items: 1 / 0
            first = await client.post("/text", json={"texts": ["a"]})
            client.service.batcher._compute["text"] = client.service._encode_texts
            return first, await client.post("/text", json={"texts": ["a"]})

    first, then = asyncio.run(run())
    refused(first, 500, "its log has the details")
    assert then.status_code == 200 and "ZeroDivisionError" in caplog.text
    assert "ZeroDivision" not in json.dumps(first.json())


def test_programs_are_told_of_every_answer_as_it_is(backends, film):
    raw = {"content": film, "headers": {"content-type": "video/mp4"}}
    paths = ["/text", "/video", "/video", "/score", "/health", "/model"]
    schema, *found = ask(
        backends("torch"),
        ("GET", "/openapi.json", {}),
        ("POST", "/text", {"json": {"texts": TEXTS}}),
        ("POST", "/video", raw),
        ("POST", "/video", {"params": {"per_frame": True}, **raw}),
        ("POST", "/score", {"params": {"text": TEXTS}, **raw}),
        ("GET", "/health", {}),
        ("GET", "/model", {}),
        ("POST", "/text", {"json": {}}),
        ("POST", "/video", {"content": b"a", "headers": {"content-type": "a/b"}}),
        ("POST", "/score", raw),
    )
    types = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer",
             float: "number"}  # fmt: skip

    def fits(value, told):
        assert types[type(value)] == told["type"]
        assert set(told.get("required", ())) <= set(value if isinstance(value, dict) else ())
        if "properties" in told:
            assert set(value) <= set(told["properties"])
            for name, part in value.items():
                fits(part, told["properties"][name])
        for part in value if isinstance(value, list) else ():
            fits(part, told["items"])

    for path, answer in zip([*paths, "/text", "/video", "/score"], found, strict=True):
        (way,) = schema.json()["paths"][path].values()
        told = way["responses"][str(answer.status_code)]["content"]["application/json"]["schema"]
        fits(answer.json(), told)
    assert "HTTPValidationError" not in schema.text
