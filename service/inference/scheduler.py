"""Whose images are judged when, and on which thread."""

from collections.abc import Sequence

from torch import Tensor

from modeguard.detector import Verdict
from modeguard.service.inference.bundles import ServedBundle
from modeguard.service.inference.judging import judge
from modeguard.service.inference.threads import IsWanted, Threads


class Scheduler:
    """One request after the other, in the order in which they come, on one thread.

    One thread, because the classifier already uses all cores or the GPU: two at a time would only share them. Whatever
    is to judge in another order, or the rows of several requests in one call, takes the place of this class.
    """

    def __init__(self, thread: Threads) -> None:
        self._thread = thread

    async def judge(
        self, served: ServedBundle, images: Sequence[Tensor], *, with_curves: bool, is_wanted: IsWanted
    ) -> list[Verdict]:
        """Verdicts on the images of one request, see `judging.judge`.

        Raises:
            NoLongerWantedError: if they are not wanted any more when it is their turn.
        """
        return await self._thread.run(lambda: judge(served, images, with_curves=with_curves), is_wanted)
