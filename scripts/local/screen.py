"""What the user sees while the local edition starts and runs: one line per step, a spinner on a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.status import Status


class Screen:
    """Lines on standard output. On a terminal the step under way also shows what it is doing right now."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def step(self, text: str) -> Iterator[Callable[[str], None]]:
        """Show `text` while the block runs and its time afterwards; the block may call what it is given for news."""
        began = time.monotonic()
        with self._console.status(text) as status:
            yield self._news(text, status)
        self._print(f"[green]✓[/] {text} [dim]{time.monotonic() - began:.1f} s[/]", markup=True)

    def _news(self, text: str, status: Status) -> Callable[[str], None]:
        if self._console.is_terminal:
            return lambda line: status.update(f"{text}: {line}")
        return lambda line: self.say(f"  {line}")

    def say(self, line: str, style: str = "") -> None:
        """One line as it is: never wrapped, so that commands can be copied."""
        self._print(line, style=style, markup=False)

    def _print(self, line: str, *, style: str = "", markup: bool) -> None:
        with suppress(OSError):  # a terminal that was closed: stopping must go on without it
            self._console.print(line, style=style, markup=markup, highlight=False, soft_wrap=True)
