"""Which thread does what: nothing heavy on the event loop, decoding on a few threads, inference on one.

One inference thread, because the classifier already uses all cores or the GPU: two at a time would only share them.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from starlette.requests import ClientDisconnect
from torch import Tensor

from modeguard.service.errors import BusyError, ImageInRequestError, NotReadyError
from modeguard.service.http.body import ImageFile, split_body
from modeguard.service.inference.bundles import Verdict, judge, load_bundle
from modeguard.service.settings import Settings
from modeguard.templates_store.bundles.bundle import Bundle
from modeguard.templates_store.images import InputSpec, InvalidImage, decode_image

Result = TypeVar("Result")


class Engine:
    """A bundle and the threads that work with it; its methods are called on the event loop only."""

    def __init__(self, settings: Settings, bundle: Bundle | None = None) -> None:
        self.settings = settings
        self._bundle = bundle
        self._n_pending = 0
        self._decoding = ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="decoding")
        self._inference = ThreadPoolExecutor(1, thread_name_prefix="inference")

    @property
    def bundle(self) -> Bundle:
        """The bundle being served.

        Raises:
            NotReadyError: until it is loaded.
        """
        if self._bundle is None:
            raise NotReadyError("the bundle is still being loaded; try again soon")
        return self._bundle

    async def load(self) -> None:
        """Load the bundle that the settings name, unless there is one already.

        Raises:
            ModeguardError: see `load_bundle`.
        """
        if self._bundle is None:
            self._bundle = await _on(self._inference, lambda: load_bundle(self.settings))

    @contextmanager
    def admission(self) -> Iterator[None]:
        """A place among the pending requests, held from before the body is read, so that memory is bounded.

        Raises:
            BusyError: if all places are taken.
        """
        limit = self.settings.max_pending
        if self._n_pending >= limit:
            raise BusyError(
                f"at most {limit} requests are worked on at a time, and as many are pending; try again soon"
            )
        self._n_pending += 1
        try:
            yield
        finally:
            self._n_pending -= 1

    async def images(
        self, content_type: str, body: bytes, *, is_wanted: Callable[[], bool]
    ) -> tuple[list[str | None], list[Tensor]]:
        """File names and decoded images of a body.

        Args:
            content_type: of the body.
            body: one image, or a form of several.
            is_wanted: asked once a thread is free, and nothing is done if not.

        Raises:
            ClientDisconnect: if it is not wanted any more.
            MultipartError, TooManyImagesError: see `split_body`.
            ImageInRequestError: for the first image that cannot be decoded.
        """
        spec, settings = self.bundle.manifest.input, self.settings

        def decode() -> tuple[list[str | None], list[Tensor]]:
            files = split_body(content_type, body, max_images=settings.max_images)
            return [file.filename for file in files], _decode_all(files, spec, settings.max_pixels)

        return await _on(self._decoding, decode, is_wanted)

    async def verdicts(
        self, images: Sequence[Tensor], *, with_curves: bool, is_wanted: Callable[[], bool]
    ) -> list[Verdict]:
        """Verdicts on decoded images, see `judge`.

        Raises:
            ClientDisconnect: if they are not wanted any more once the thread is free.
        """
        bundle, rows_per_call = self.bundle, self.settings.rows_per_call
        return await _on(
            self._inference,
            lambda: judge(bundle, images, rows_per_call=rows_per_call, with_curves=with_curves),
            is_wanted,
        )

    def close(self) -> None:
        """Let the threads finish what they are doing, and end them."""
        for pool in (self._decoding, self._inference):
            pool.shutdown(cancel_futures=True)


async def _on(
    pool: ThreadPoolExecutor, work: Callable[[], Result], is_wanted: Callable[[], bool] = lambda: True
) -> Result:
    def begin() -> Result:
        if not is_wanted():
            raise ClientDisconnect
        return work()

    return await asyncio.get_running_loop().run_in_executor(pool, begin)


def _decode_all(files: Sequence[ImageFile], spec: InputSpec, max_pixels: int) -> list[Tensor]:
    images = []
    for index, file in enumerate(files):
        try:
            images.append(decode_image(file.content, spec, max_pixels=max_pixels))
        except InvalidImage as error:
            raise ImageInRequestError(index, file.filename, error) from error
    return images
