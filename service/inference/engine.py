"""What every API asks: a place, decoded images, verdicts. Nothing heavy is done on the event loop."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from modeguard.detector import ModeguardError, Verdict
from modeguard.service.inference.bundles import Bundles, ServedBundle
from modeguard.service.inference.decoding import DecodedImage, ImageFile, decode_images
from modeguard.service.inference.scheduler import Scheduler
from modeguard.service.inference.threads import IsWanted, Threads


class BusyError(ModeguardError):
    """As many requests as may be pending are pending."""


class Engine:
    """Bundles and the threads that work with them; its methods are called on the event loop only.

    A request takes the current bundle once and hands it to each step, so that all of it is answered by the same one.
    """

    def __init__(self, bundles: Bundles, *, decode_threads: int, max_pending: int, max_pixels: int) -> None:
        self._bundles = bundles
        self._max_pending, self._n_pending = max_pending, 0
        self._max_pixels = max_pixels
        self._decoding = Threads(decode_threads, "decoding")
        self._inference = Threads(1, "inference")
        self._scheduler = Scheduler(self._inference)

    @property
    def current(self) -> ServedBundle:
        """The bundle that is served now.

        Raises:
            NotReadyError: until it is loaded.
        """
        return self._bundles.current

    async def load(self) -> None:
        """Load the bundle, unless there is one already.

        Raises:
            ModeguardError: see `BundleSource.read`.
        """
        await self._inference.run(self._bundles.load)

    @contextmanager
    def admission(self) -> Iterator[None]:
        """A place among the pending requests, held from before the images are received, so that memory is bounded.

        Raises:
            BusyError: if all places are taken.
        """
        if self._n_pending >= self._max_pending:
            raise BusyError(
                f"at most {self._max_pending} requests are worked on at a time, and as many are pending; try again soon"
            )
        self._n_pending += 1
        try:
            yield
        finally:
            self._n_pending -= 1

    async def decode(
        self, served: ServedBundle, files: Callable[[], Sequence[ImageFile]], *, is_wanted: IsWanted
    ) -> list[DecodedImage]:
        """The images of a request as the bundle's classifier takes them.

        Args:
            served: the bundle that they are for.
            files: gives them as they were sent. It is called on the decoding thread, as to take a request apart is work
                too, and its errors come through.
            is_wanted: asked once a thread is free, and nothing is done if not.

        Raises:
            NoLongerWantedError: if they are not wanted any more.
            ImageInRequestError: for the first image that cannot be decoded.
        """
        spec, max_pixels = served.bundle.manifest.input, self._max_pixels
        return await self._decoding.run(lambda: decode_images(files(), spec, max_pixels=max_pixels), is_wanted)

    async def judge(
        self, served: ServedBundle, images: Sequence[Tensor], *, with_curves: bool, is_wanted: IsWanted
    ) -> list[Verdict]:
        """Verdicts on the images of a request, in their order.

        Args:
            served: the bundle that they are for.
            images: at least one, each (c, h, w) uint8 as `decode` gives their pixels.
            with_curves: whether the verdicts carry their loss curves.
            is_wanted: asked when it is their turn, and nothing is done if not.

        Raises:
            NoLongerWantedError: if they are not wanted any more.
        """
        return await self._scheduler.judge(served, images, with_curves=with_curves, is_wanted=is_wanted)

    def close(self) -> None:
        """Let the threads finish what they are doing, and end them."""
        for threads in (self._decoding, self._inference):
            threads.close()
