"""How a sweep goes, for a person: a live table in a terminal, lines elsewhere, and the table of `--status`."""

import collections
import dataclasses
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Protocol

DRAW_SECONDS = 1.0
DRAW_SHARE = 0.01
"""Of a core's time, which the trials need: a large table is drawn less often."""

LINE_SECONDS = 10.0
BEST_ROWS = 5

STATES = (
    *("done", "stopped", "diverged", "failed"),
    *("running", "starting", "queued", "orphan"),
    *("interrupted", "preempted", "dead", "waiting"),
)
"""In the order in which they are counted; an orphan is a run that a process of an earlier sweep still holds."""

MOVING = ("running", "starting", "orphan")


@dataclasses.dataclass(frozen=True)
class Line:
    """A trial in a table; None is what is not known.

    Attributes:
      best: the best value of the metric so far.
      left: seconds that it still takes.
    """

    name: str
    state: str
    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    best: float | None = None
    left: float | None = None

    def cells(self) -> tuple[str, ...]:
        """As text, in the order of `heads`."""
        step = "" if not self.step and not self.steps else f"{self.step or 0:,}/{self.steps or 0:,}"
        left = "" if self.left is None else duration(self.left)
        return self.name, self.state, step, _number(self.loss), _number(self.best), left


def heads(metric: str) -> tuple[str, ...]:
    """The names of the columns."""
    return "trial", "state", "step", "loss", f"best {metric}", "left"


class Shown(Protocol):
    """What is shown: the scheduler."""

    metric: tuple[str, str]

    def lines(self) -> list[Line]:
        """Every trial."""

    def total(self) -> str:
        """One line on the whole."""


class View:
    """Shows a sweep as it runs. This one shows nothing."""

    def say(self, line: str) -> None:
        """Something that happened, in a line that stays."""

    def ended(self, line: str) -> None:
        """A trial that ended well, in a line."""

    def update(self, sweep: Shown, last: bool = False) -> None:
        """How it goes; called at each poll, so that most calls do nothing."""

    def close(self) -> None:
        """Nothing more will be shown."""


class Lines(View):
    """For a file or a pipe: a line for each trial that ends, and one on the whole, at most every ten seconds."""

    def __init__(self):
        self._spoken, self._total = time.monotonic(), ""

    def say(self, line: str) -> None:
        print(line, flush=True)

    ended = say

    def update(self, sweep: Shown, last: bool = False) -> None:
        if last or time.monotonic() - self._spoken < LINE_SECONDS:  # the last one is told at more length
            return
        self._spoken, total = time.monotonic(), sweep.total()
        if total != self._total:
            print(total, flush=True)
        self._total = total


class LiveTable(View):
    """For a terminal: the trials that run, the best few, and how many there are of each state, drawn in place."""

    def __init__(self):
        from rich.console import Console
        from rich.live import Live

        self._console, self._next = Console(highlight=False), 0.0
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._live.start()

    def say(self, line: str) -> None:
        self._console.print(line, markup=False)

    def update(self, sweep: Shown, last: bool = False) -> None:
        began = time.monotonic()
        if last or began >= self._next:
            self._live.update(self._draw(sweep), refresh=True)
            took = time.monotonic() - began
            self._next = began + max(DRAW_SECONDS, took / DRAW_SHARE)

    def _draw(self, sweep: Shown):
        from rich.console import Group
        from rich.text import Text

        width, height = self._console.size
        shown = choose(sweep.lines(), sweep.metric[1], height - 4)
        texts = [sweep.total(), *to_text(shown, sweep.metric[0], width)]
        styles = ["bold", "bold", *(_STYLES.get(line.state, "") if line else "" for line in shown)]
        return Group(*(Text(text, style, no_wrap=True, overflow="ellipsis") for text, style in zip(texts, styles)))

    def close(self) -> None:
        self._live.stop()


_STYLES = {"failed": "red", "diverged": "yellow", "orphan": "yellow", "running": "bold", "waiting": "dim"}


def make_view() -> View:
    """A live table where standard output is a terminal, else lines."""
    return LiveTable() if sys.stdout.isatty() else Lines()


def choose(lines: Sequence[Line], mode: str, most: int) -> list[Line | None]:
    """The lines to show: all, or those that run or failed and the best few; None stands where there is a gap."""
    if len(lines) <= most:
        return list(lines)
    moving = [line for line in lines if line.state in MOVING]
    failed = [line for line in lines if line.state == "failed"]
    rest = [line for line in lines if line.state not in (*MOVING, "failed") and line.best is not None]
    first = [*moving, *failed][: max(most - BEST_ROWS - 1, 1)]
    best = sorted(rest, key=lambda line: line.best, reverse=mode == "max")[: max(most - len(first) - 1, 1)]
    return [*first, None, *best]


def count_states(lines: Iterable[Line]) -> str:
    """How many trials are in each state: 64 trials: 12 done, 2 running, 50 waiting."""
    counts = collections.Counter(line.state for line in lines)
    told = [f"{counts[state]:,} {state}" for state in STATES if counts[state]]
    total = counts.total()
    return f"{total:,} trial{'s' * (total != 1)}: {', '.join(told) or 'none yet'}"


def to_text(lines: Sequence[Line | None], metric: str, width: int | None = None) -> list[str]:
    """Aligned columns, the head first; names give way where they are wider than `width` leaves room for."""
    rows = [heads(metric), *(("...", "", "", "", "", "") if line is None else line.cells() for line in lines)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    if width is not None:
        widths[0] = min(widths[0], max(width - sum(widths[1:]) - 2 * len(widths[1:]), 12))
    return [
        "  ".join((_shorten(name, widths[0]), state.ljust(widths[1]), *map(str.rjust, numbers, widths[2:]))).rstrip()
        for name, state, *numbers in rows
    ]


def _shorten(name: str, width: int) -> str:
    """A name in so many characters: of a long one the end, which varies most, and some of the beginning."""
    if len(name) <= width:
        return name.ljust(width)
    return f"{name[: width // 3]}…{name[len(name) - (width - width // 3 - 1) :]}"


def duration(seconds: float) -> str:
    """A time for people: 12 s, 3 min, 2.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
