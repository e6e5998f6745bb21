"""Plain lines without a terminal, bars with one; results and progress on different streams."""

import io
import itertools

import pytest

from modeguard.offline.console import Console


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture(autouse=True)
def _no_wishes_about_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


@pytest.fixture
def results() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def progress() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def console(results: io.StringIO, progress: io.StringIO, clock: Clock) -> Console:
    return Console(results, progress, every_s=5, clock=clock)


def test_progress_without_a_terminal_is_one_line_every_few_seconds(
    console: Console, results: io.StringIO, progress: io.StringIO, clock: Clock
) -> None:
    with console.progress("attacking [fgsm]", total=100) as work:
        for _ in range(100):
            clock.now_s += 0.11
            work.advance()
    assert progress.getvalue().splitlines() == [
        "attacking [fgsm] ...",
        "attacking [fgsm]: 46 of 100, 5.1 s",
        "attacking [fgsm]: 92 of 100, 10.1 s",
        "attacking [fgsm]: 100 of 100, 11.0 s",
    ]
    assert results.getvalue() == ""


def test_long_work_is_told_more_rarely(console: Console, progress: io.StringIO, clock: Clock) -> None:
    with console.progress("training", total=10_000) as work:
        for _ in range(10_000):  # three hours, which would be 2,160 lines
            clock.now_s += 1.08
            work.advance()
    lines = progress.getvalue().splitlines()
    assert 50 < len(lines) < 150
    assert lines[-1] == "training: 10,000 of 10,000, 180 min 0 s"
    told_s = [0] + [int(line.split(": ")[1].split(" of ")[0].replace(",", "")) * 1.08 for line in lines[1:]]
    assert all(later - sooner <= max(5, later / 18) + 1.08 for sooner, later in itertools.pairwise(told_s))


def test_progress_of_unknown_length_counts(console: Console, progress: io.StringIO) -> None:
    with console.progress("reading") as work:
        work.advance(7)
    assert progress.getvalue().splitlines()[-1] == "reading: 7, 0.0 s"


def test_a_step_tells_how_long_it_took(console: Console, progress: io.StringIO, clock: Clock) -> None:
    with console.step("fitting"):
        clock.now_s = 83
    assert progress.getvalue().splitlines() == ["fitting ...", "fitting: 1 min 23 s"]


def test_a_step_that_fails_is_not_called_done(console: Console, progress: io.StringIO) -> None:
    with pytest.raises(KeyboardInterrupt), console.step("fitting"):
        raise KeyboardInterrupt
    assert progress.getvalue().splitlines() == ["fitting ..."]


def test_warnings_and_errors_go_to_stderr_and_results_to_stdout(
    console: Console, results: io.StringIO, progress: io.StringIO
) -> None:
    console.warn("[data] root: odd")
    console.error("x" * 300)
    console.note("a note")
    console.say("[1, 2]")
    assert progress.getvalue().splitlines() == ["warning: [data] root: odd", "error: " + "x" * 300, "a note"]
    assert results.getvalue() == "[1, 2]\n"


def test_a_table_shows_brackets_as_they_are_and_no_colours_in_a_file(console: Console, results: io.StringIO) -> None:
    console.table("[bold]title", ["attack", "AUROC"], [["[cw]", 0.98765], ["fgsm", 0.5]])
    text = results.getvalue()
    assert "[bold]title" in text
    assert "[cw]" in text
    assert "0.9877" in text
    assert "\x1b" not in text


def test_a_row_of_another_length_is_refused(console: Console) -> None:
    with pytest.raises(ValueError, match="expected rows of 2 entries"):
        console.table("", ["a", "b"], [[1]])


def test_the_streams_are_those_of_the_moment(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.say("result")
    console.warn("odd")
    assert tuple(capsys.readouterr()) == ("result\n", "warning: odd\n")


def test_a_wide_table_is_not_cut_in_a_file(console: Console, results: io.StringIO) -> None:
    console.table("", ["a", "b"], [["x" * 60, "y" * 60]])
    assert "x" * 60 in results.getvalue()
    assert "y" * 60 in results.getvalue()


def test_a_terminal_gets_a_bar() -> None:
    terminal = Terminal()
    with Console(io.StringIO(), terminal).progress("attacking", total=3) as work:
        work.advance(3)
    assert "\x1b" in terminal.getvalue()
    assert "3/3" in terminal.getvalue()


def test_on_a_terminal_work_within_work_is_told_in_lines(clock: Clock) -> None:
    terminal = Terminal()
    console = Console(io.StringIO(), terminal, clock=clock)
    with console.progress("templates", total=2) as outer:
        with console.step("checking [the classifier]"), console.progress("reading", total=1) as inner:
            inner.advance()
        outer.advance(2)
    assert "checking [the classifier]: 0.0 s" in terminal.getvalue()
    assert "reading: 1 of 1" in terminal.getvalue()
    assert "2/2" in terminal.getvalue()


def test_after_ctrl_c_the_next_work_is_drawn_again() -> None:
    terminal = Terminal()
    console = Console(io.StringIO(), terminal)
    with pytest.raises(KeyboardInterrupt), console.progress("first", total=1):
        raise KeyboardInterrupt
    with console.progress("second", total=5) as work:
        work.advance(5)
    assert "5/5" in terminal.getvalue()
