"""The real server, in a process of its own, over loopback."""

import contextlib
import json
import shutil
import signal
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from modeguard.service.__main__ import main
from modeguard.templates_store.bundles import read_bundle
from tests.service.conftest import (
    MAX_BODY_BYTES,
    PATIENCE_S,
    PNG,
    Server,
    problem_of,
    refused_start,
    running_server,
    server_environment,
)
from tests.service.toy import BLUE, FACTORY, NEARLY_GREY, RED, image_file

CallMain = Callable[[dict[str, str]], tuple[int, str, str]]


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=PATIENCE_S, trust_env=False) as client:
        yield client


def huge_png() -> bytes:
    header = b"IHDR" + (30_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    chunks = [(13).to_bytes(4, "big") + header, (1000).to_bytes(4, "big") + b"IDAT"]  # its pixels never come
    return b"\x89PNG\r\n\x1a\n" + zlib.crc32(header).to_bytes(4, "big").join(chunks)


def test_the_whole_way(client: httpx.Client, bundle_path: Path) -> None:
    assert client.get("/livez").status_code == client.get("/readyz").status_code == 200
    digest = read_bundle(bundle_path, allowed_factories=(FACTORY,)).digest
    assert client.get("/v1/model").json()["model"] == {"name": "colours", "version": digest}
    raw = client.post("/v1/detect", content=image_file(RED), headers=PNG).json()
    assert raw["model"]["version"] == digest
    assert raw["results"][0]["is_adversarial"] is False
    files = [("f", (f"{n}.webp", image_file(c, "WEBP"))) for n, c in enumerate([RED, NEARLY_GREY, BLUE])]
    several = client.post("/v1/detect", files=files, params={"curve": "true"}).json()
    assert [result["is_adversarial"] for result in several["results"]] == [False, True, None]
    assert len(several["results"][0]["curve"]["losses"]) == 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"a text file\n", "unknown_format"),
        (image_file(RED, "JPEG", size=(64, 64))[:-300], "damaged"),
        (huge_png(), "too_many_pixels"),
    ],
)
def test_bad_images_are_problems(client: httpx.Client, content: bytes, reason: str) -> None:
    response = client.post("/v1/detect", content=content, headers=PNG)
    assert problem_of(response, 422, "invalid-image")["reason"] == reason


def test_the_sender_of_a_body_that_is_too_large_reads_the_answer(client: httpx.Client) -> None:
    for content in (bytes(MAX_BODY_BYTES + 1), (bytes(100_000) for _ in range(15))):
        problem_of(client.post("/v1/detect", content=content, headers=PNG), 413, "body-too-large")


def test_other_bad_requests_are_problems(client: httpx.Client) -> None:
    problem_of(client.post("/v1/detect", data={"a": "b"}), 415, "unsupported-media-type")
    problem_of(client.get("/nowhere"), 404, None)
    problem_of(client.delete("/v1/detect"), 405, None)
    files = [("f", ("x.png", image_file(RED)))] * 33
    problem_of(client.post("/v1/detect", files=files), 413, "too-many-images")


def test_a_chunked_body_without_end_is_cut_off(server: Server) -> None:
    """A body of no declared length goes on and on; the server answers at the limit and hangs up."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
        head = (
            f"POST /v1/detect HTTP/1.1\r\nHost: {host}\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        connection.sendall(head.encode())
        for _ in range(2 * MAX_BODY_BYTES // 0x10000 + 1):
            connection.sendall(b"10000\r\n" + bytes(0x10000) + b"\r\n")
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while data := connection.recv(65536):
                answer += data
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_request_at_hand_is_answered_before_the_server_stops(bundle_path: Path) -> None:
    """Half of a body is sent, then SIGTERM, then the other half: the answer still comes, and then the end.

    What it logged meanwhile is one JSON object a line, with the id of the request and no line break of a client's.
    """
    with running_server(server_environment(bundle_path)) as server:
        response = httpx.get(f"{server.url}/a%0Ab", trust_env=False)
        host, port = server.url.removeprefix("http://").split(":")
        image = image_file(RED)
        with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
            head = f"POST /v1/detect HTTP/1.1\r\nHost: {host}\r\nContent-Type: image/png\r\nExpect: 100-continue\r\n"
            connection.sendall(f"{head}Content-Length: {len(image)}\r\n\r\n".encode())
            assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")  # the request is being handled
            connection.sendall(image[:20])
            server.process.send_signal(signal.SIGTERM)
            refusal = threading.Event()
            while not refusal.is_set():  # until the server takes no more connections
                try:
                    socket.create_connection((host, int(port)), timeout=PATIENCE_S).close()
                except ConnectionError:
                    refusal.set()
            connection.sendall(image[20:])
            answer = b""
            while data := connection.recv(65536):
                answer += data
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert server.wait() == 0
    lines = [json.loads(line) for line in server.stderr.splitlines()]
    line = next(line for line in lines if line["event"] == "request")
    assert line["request_id"] == response.headers["x-request-id"]
    assert (line["method"], line["path"], line["status"]) == ("GET", "/a%0Ab", 404)


def assert_one_line(status: int, out: str, err: str, expected_status: int, *words: str) -> None:
    assert (status, out) == (expected_status, "")
    said = [line for line in err.splitlines() if line.startswith("modeguard: ")]
    assert len(said) == 1, err
    assert "Traceback" not in err
    assert all(word in said[0] for word in words), err


def test_a_damaged_bundle_is_said_in_one_line(bundle_path: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(bundle_path, tmp_path / "bundle")
    (damaged / "detector.safetensors").write_bytes(b"nonsense")
    assert_one_line(*refused_start(server_environment(damaged)), 1, "detector.safetensors")


def test_a_detector_calibrated_in_another_type_is_logged(bundle_path: Path) -> None:
    with running_server(server_environment(bundle_path, dtype="bfloat16")) as running:
        described = httpx.get(f"{running.url}/v1/model", trust_env=False, timeout=PATIENCE_S).json()
        assert (described["compute_dtype"], described["calibrated_dtype"]) == ("bfloat16", "float32")
        assert running.stop() == 0
        assert "the detector was calibrated in float32, but the classifier computes in bfloat16" in running.stderr


def test_another_bundle_than_the_expected_is_said_in_one_line(bundle_path: Path) -> None:
    outcome = refused_start(server_environment(bundle_path, bundle_digest=64 * "0"))
    assert_one_line(*outcome, 1, "another bundle than expected", 64 * "0")


@pytest.fixture
def main_in_this_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], logging_restored: None
) -> CallMain:
    """Call the entry point for status, stdout and stderr."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # the handlers of this process stay

    def call(environment: dict[str, str]) -> tuple[int, str, str]:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return main(), *capsys.readouterr()

    return call


def test_a_port_in_use_is_said_in_one_line(main_in_this_process: CallMain, bundle_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        outcome = main_in_this_process(server_environment(bundle_path, port=port))
    assert_one_line(*outcome, 1, str(port), "in use", "MODEGUARD_PORT")


@pytest.mark.parametrize("host", ["203.0.113.1", "no such host"])
def test_an_address_of_another_machine_is_said_in_one_line(
    main_in_this_process: CallMain, bundle_path: Path, host: str
) -> None:
    assert_one_line(*main_in_this_process(server_environment(bundle_path, host=host)), 1, host, "MODEGUARD_HOST")


def test_wrong_settings_are_said_in_one_line(main_in_this_process: CallMain, bundle_path: Path) -> None:
    outcome = main_in_this_process(server_environment(bundle_path, max_images=0, port="http"))
    assert_one_line(*outcome, 2, "MODEGUARD_MAX_IMAGES", "MODEGUARD_PORT")
