"""What the command line says: results on stdout, progress and warnings on stderr.

On a terminal progress is drawn by rich. Elsewhere (a log file, CI) it is plain lines: one every few seconds, and
fewer the longer the work goes on.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, TextIO

import rich.console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

__all__ = ["Console", "Progress"]

_PLAIN_WIDTH = 160
_LINES_IN_PROPORTION = 20  # a line each time another twentieth of the time so far has passed


class Progress(Protocol):
    """How far one piece of work is."""

    def advance(self, n: float = 1) -> None:
        """Say that `n` more units are done."""
        ...


class Console:
    """Says what happens, to people and to log files.

    Args:
        results: where tables and lines of results go; None is what stdout is at the time.
        progress: where progress, warnings and errors go; None is what stderr is at the time.
        every_s: plain progress lines of one piece of work come at most this often, and after long work more rarely.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        results: TextIO | None = None,
        progress: TextIO | None = None,
        *,
        every_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._results = rich.console.Console(file=results)
        self._progress = rich.console.Console(file=progress, stderr=True)
        self._every_s = every_s
        self._clock = clock
        self._is_drawing = False

    def say(self, text: str) -> None:
        """A line of result, on stdout, as it is."""
        self._results.print(text, markup=False, highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """A line about what is going on, on stderr."""
        self._line(text)

    def warn(self, text: str) -> None:
        """Something odd that does not stop the work, on stderr."""
        self._line(text, "warning", "yellow")

    def error(self, text: str) -> None:
        """Why the work stopped, on stderr."""
        self._line(text, "error", "bold red")

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table of results, on stdout; numbers stand at the right.

        Raises:
            ValueError: if a row has not one entry a column.
        """
        if wrong := [row for row in rows if len(row) != len(columns)]:
            raise ValueError(f"expected rows of {len(columns)} entries, as many as columns, got {wrong[0]}")
        table = Table(title=escape(title) if title else None, title_justify="left")
        for k, column in enumerate(columns):
            is_number = all(isinstance(row[k], int | float) for row in rows) and bool(rows)
            table.add_column(escape(column), justify="right" if is_number else "left")
        for row in rows:
            table.add_row(*(escape(_cell(entry)) for entry in row))
        console = self._results
        if not console.file.isatty():  # there rich would cut lines at 80 columns, and a log is read by machines too
            console = rich.console.Console(file=console.file, width=_PLAIN_WIDTH)
        console.print(table)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """One step of the work: announced, and its duration told when it is done."""
        started = self._clock()
        if self._may_draw():
            with self._drawing(), self._progress.status(escape(name)):
                yield
        else:
            self._line(f"{name} ...")
            yield
        self._line(f"{name}: {_duration(self._clock() - started)}")

    @contextmanager
    def progress(self, description: str, total: float | None = None) -> Iterator[Progress]:
        """One piece of work whose end is known: a bar on a terminal, else lines now and then.

        Args:
            description: what is being done.
            total: how many units there are; None if unknown.
        """
        draw = self._bar if self._may_draw() else self._plain
        with draw(description, total) as progress:
            yield progress

    def _may_draw(self) -> bool:
        """On a terminal, and only one thing at a time; what happens within it is told in lines above it."""
        return self._progress.file.isatty() and not self._is_drawing

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        self._is_drawing = True
        try:
            yield
        finally:
            self._is_drawing = False

    @contextmanager
    def _bar(self, description: str, total: float | None) -> Iterator[Progress]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with self._drawing(), Bar(*columns, console=self._progress) as bar:
            yield _Drawn(bar, bar.add_task(escape(description), total=total))

    @contextmanager
    def _plain(self, description: str, total: float | None) -> Iterator[Progress]:
        lines = _Lines(description, total, self._every_s, self._clock, self._line)
        self._line(f"{description} ...")
        yield lines
        self._line(lines.text())

    def _line(self, text: str, kind: str = "", style: str = "") -> None:
        if kind:
            self._progress.print(f"{kind}: ", style=style, end="", markup=False, highlight=False)
        self._progress.print(text, markup=False, highlight=False, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Progress as a bar."""

    bar: Bar
    task: TaskID

    def advance(self, n: float = 1) -> None:
        self.bar.advance(self.task, n)


@dataclass(slots=True)
class _Lines:
    """Progress as a line now and then."""

    description: str
    total: float | None
    every_s: float
    clock: Callable[[], float]
    line: Callable[[str], None]
    done: float = 0
    started_s: float = field(init=False)
    said_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.started_s = self.said_s = self.clock()

    def advance(self, n: float = 1) -> None:
        self.done += n
        now_s = self.clock()
        pause_s = max(self.every_s, (now_s - self.started_s) / _LINES_IN_PROPORTION)
        if now_s - self.said_s >= pause_s and self.done != self.total:
            self.said_s = now_s
            self.line(self.text())

    def text(self) -> str:
        of_total = "" if self.total is None else f" of {self.total:,.10g}"
        return f"{self.description}: {self.done:,.10g}{of_total}, {_duration(self.clock() - self.started_s)}"


def _cell(entry: object) -> str:
    return f"{entry:.4g}" if isinstance(entry, float) else str(entry)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"
