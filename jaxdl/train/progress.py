"""What a person sees while a run trains: a bar in a terminal, lines elsewhere."""

import sys
import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm


def format_values(values: Mapping[str, Any]) -> str:
    """`loss 0.1234  accuracy 0.9876`: scalars, four significant digits."""
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items() if isinstance(value, (int, float)))


class Progress:
    """A bar of steps with loss, learning rate, examples per second and time left; without a terminal, lines.

    Args:
      mode: 'on', 'off', or 'auto' for a bar only where standard error is a terminal.
    """

    LINE_SECONDS = 10.0
    SHOW_SECONDS = 0.2

    def __init__(self, mode: str, *, total: int, initial: int, batch_size: int, quiet: bool = False):
        self._quiet = quiet
        self._bar_shown = not quiet and (mode == "on" or (mode == "auto" and sys.stderr.isatty()))
        self._lines = not quiet and not self._bar_shown and mode != "off"
        self._batch_size, self._total = batch_size, total
        self._last_line = self._began = time.monotonic()
        self._shown = 0.0
        self._first = self._step = initial
        self._postfix = self._rate = ""
        layout = "{percentage:3.0f}%|{bar}| step {n_fmt}/{total_fmt}{postfix} [{elapsed}<{remaining}]"
        self._bar = tqdm(
            total=total,
            initial=initial,
            disable=not self._bar_shown,
            bar_format=layout,
            dynamic_ncols=True,
            mininterval=0.2,
        )

    def advance(self, step: int, steps_per_second: float) -> None:
        """The run has reached `step`; the speed is that of training alone."""
        now = time.monotonic()
        if now - self._shown < self.SHOW_SECONDS and step < self._total:
            return
        self._shown = now
        self._rate = f"{steps_per_second * self._batch_size:,.0f} examples/s"
        self._bar.set_postfix_str(", ".join(filter(None, (self._postfix, self._rate))), refresh=False)
        self._bar.update(step - self._step)
        self._step = step

    def metrics(self, step: int, values: Mapping[str, Any]) -> None:
        """New training metrics, of `step`."""
        losses = {name: value for name, value in values.items() if name == "loss" or name.endswith("_loss")}
        shown = {"loss": losses["loss"]} if "loss" in losses else losses  # else one of each player
        rate = next((value for name, value in values.items() if name.endswith("learning_rate")), float("nan"))
        self._postfix = ", ".join([*(f"{name} {value:.4f}" for name, value in shown.items()), f"lr {rate:.2e}"])
        now = time.monotonic()
        if self._lines and (now - self._last_line >= self.LINE_SECONDS or step >= self._total):
            self._last_line = now
            left = (self._total - step) * (now - self._began) / max(step - self._first, 1)
            self.say(f"step {step}/{self._total}  {self._postfix}, {self._rate}, {left:.0f} s left")

    def restart(self, step: int) -> None:
        """Goes on from `step`, which may lie behind; timing begins here."""
        self._began, self._first, self._step = time.monotonic(), step, step
        self._bar.n = step
        self._bar.refresh()

    def say(self, line: str) -> None:
        """A line that stays, above the bar."""
        if not self._quiet:
            tqdm.write(line, file=sys.stdout)
            sys.stdout.flush()

    def close(self) -> None:
        self._bar.close()
