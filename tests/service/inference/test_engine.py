"""The room by itself, as an API over something else than HTTP asks it: no request, no response, no settings."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from modeguard.detector import Verdict, detect, to_pixels
from modeguard.service.inference import (
    Bundles,
    BundleSource,
    BusyError,
    Engine,
    ImageFile,
    ImageInRequestError,
    NoLongerWantedError,
    NotReadyError,
    scheduler,
)
from modeguard.templates_store.bundles import Bundle
from modeguard.templates_store.images import decode_image
from tests.service.toy import BLUE, FACTORY, NEARLY_GREY, RED, image_file

pytestmark = pytest.mark.anyio
COLOURS = {"red": RED, "grey": NEARLY_GREY, None: BLUE}
FILES = [ImageFile(name, image_file(colour)) for name, colour in COLOURS.items()]


def is_wanted() -> bool:
    return True


@pytest.fixture
def engine(bundle_path: Path) -> Iterator[Engine]:
    """An engine that has loaded nothing yet."""
    source = BundleSource(
        path=bundle_path,
        expected_digest=None,
        device="cpu",
        dtype="float32",
        rows_per_call=3,
        torch_threads=None,
        allowed_factories=(FACTORY,),
        trusted_programs=(),
    )
    engine = Engine(Bundles(source), decode_threads=2, max_pending=2, max_pixels=10_000)
    yield engine
    engine.close()


def test_the_room_knows_nothing_of_http() -> None:
    """In an interpreter that has imported nothing else yet."""
    code = "import sys, modeguard.service.inference\nprint(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    imported = set(done.stdout.split())
    assert "modeguard.service.inference.engine" in imported
    assert not imported & {"fastapi", "starlette", "python_multipart", "uvicorn", "httpx", "pydantic_settings"}
    assert not {name for name in imported if name.startswith(("modeguard.service.http", "modeguard.service.api"))}


async def test_images_are_loaded_for_decoded_and_judged_without_http(engine: Engine, bundle: Bundle) -> None:
    with pytest.raises(NotReadyError, match="still being loaded"):
        _ = engine.current
    await engine.load()
    served = engine.current
    assert served.bundle.digest == bundle.digest
    with engine.admission():
        images = await engine.decode(served, lambda: FILES, is_wanted=is_wanted)
        verdicts = await engine.judge(served, [i.pixels for i in images], with_curves=True, is_wanted=is_wanted)
    assert [image.filename for image in images] == list(COLOURS)
    assert [verdict.is_flagged for verdict in verdicts] == [False, True, None]
    for file, verdict in zip(FILES, verdicts, strict=True):
        found = detect(
            bundle.detector, bundle.classifier, to_pixels(decode_image(file.content, bundle.manifest.input)[None])
        )
        assert verdict.predicted == found.predicted.item()
        assert verdict.score == (None if found.is_abstained else pytest.approx(found.score.item(), abs=1e-6))


async def test_the_first_image_that_cannot_be_decoded_is_named(engine: Engine) -> None:
    await engine.load()
    files = [*FILES, ImageFile("bad", b"no image"), ImageFile("worse", b"")]
    with pytest.raises(ImageInRequestError, match="image 3") as caught:
        await engine.decode(engine.current, lambda: files, is_wanted=is_wanted)
    assert (caught.value.index, caught.value.filename, caught.value.reason) == (3, "bad", "unknown_format")


async def test_what_takes_a_request_apart_runs_on_a_decoding_thread_and_its_errors_come_through(engine: Engine) -> None:
    await engine.load()
    names = []

    def refuse() -> list[ImageFile]:
        names.append(threading.current_thread().name)
        raise BlockingIOError("no such form")

    with pytest.raises(BlockingIOError, match="no such form"):
        await engine.decode(engine.current, refuse, is_wanted=is_wanted)
    assert names[0].startswith("decoding")


async def test_no_more_requests_are_admitted_than_may_be_pending(engine: Engine) -> None:
    with engine.admission(), engine.admission(), pytest.raises(BusyError, match="at most 2 requests"):
        engine.admission().__enter__()


async def test_a_place_is_given_back_whatever_happens(engine: Engine) -> None:
    for _ in range(3):
        with pytest.raises(KeyError), engine.admission():
            raise KeyError
    with engine.admission(), engine.admission():
        pass


async def test_what_nobody_waits_for_any_more_is_not_begun(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three requests; while the first is judged the clients of the first and the third leave."""
    await engine.load()
    started, opened, n_judged, has_left = threading.Event(), threading.Event(), [], [False] * 3

    def judge_slowly(*_: object, **__: object) -> list[Verdict]:
        n_judged.append(1)
        started.set()
        assert opened.wait(60)
        return []

    monkeypatch.setattr(scheduler, "judge", judge_slowly)

    async def ask(client: int) -> list[Verdict]:
        return await engine.judge(engine.current, [], with_curves=False, is_wanted=lambda: not has_left[client])

    tasks = [asyncio.create_task(ask(client)) for client in range(3)]
    while not started.is_set():
        await asyncio.sleep(0.001)
    has_left[0] = has_left[2] = True
    opened.set()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert ends[:2] == [[], []]
    assert isinstance(ends[2], NoLongerWantedError)
    assert len(n_judged) == 2


async def test_nothing_is_decoded_that_nobody_waits_for(engine: Engine) -> None:
    await engine.load()
    with pytest.raises(NoLongerWantedError):
        await engine.decode(engine.current, lambda: pytest.fail("a request was taken apart"), is_wanted=lambda: False)
