"""How far a training loop is, on stderr: a bar of rich's where that is installed, else one line that changes.

Where stderr is no terminal, only what is worth keeping in a log is said.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

import click

from edgec.tools.cli.console import echo

if TYPE_CHECKING:
    import rich.progress

    from edgec.runtime.fit import Progress
    from edgec.tools.search.report import SearchProgress

_SHOWN_EVERY = 0.01  # of all steps: how often what is shown changes


class Display(Protocol):
    def on_progress(self, progress: Progress) -> None: ...

    def say(self, line: str) -> None:
        """A line that stays."""


@contextlib.contextmanager
def training_display() -> Iterator[Display]:
    if not sys.stderr.isatty():
        yield _Log()
        return
    try:
        import rich.progress as bars  # noqa: PLC0415  of the extra `compile`, which a device lacks
        from rich.console import Console  # noqa: PLC0415
    except ModuleNotFoundError:
        yield _Line()
        return
    columns = ("{task.description}", bars.BarColumn(), bars.MofNCompleteColumn(), "{task.fields[figures]}")
    with bars.Progress(*columns, console=Console(stderr=True), transient=True) as live:
        yield _Bar(live)


@contextlib.contextmanager
def search_display() -> Iterator[Callable[[SearchProgress], None]]:
    """What a search is told to say: a bar on a terminal, else a line for every stage."""
    if sys.stderr.isatty():
        import rich.progress as bars  # noqa: PLC0415  of the extra `compile`
        from rich.console import Console  # noqa: PLC0415

        columns = ("{task.description}", bars.BarColumn(), bars.MofNCompleteColumn(), "{task.fields[left]}")
        with bars.Progress(*columns, console=Console(stderr=True), transient=True) as live:
            task = live.add_task("", total=None, left="")
            yield lambda told: live.update(
                task,
                description=told.stage,
                completed=told.done,
                total=told.total,
                left=f"{format_seconds(told.seconds_left)} left at most",
            )
        return
    said: list[str] = []

    def say(told: SearchProgress) -> None:
        if told.stage not in said:
            said.append(told.stage)
            echo(f"{told.stage}; {format_seconds(told.seconds_left)} left at most", err=True)

    yield say


@contextlib.contextmanager
def tune_display() -> Iterator[Callable[[str, int, int], None]]:
    """What a tuning run is told to say before each class: a bar on a terminal, else a line."""
    if sys.stderr.isatty():
        import rich.progress as bars  # noqa: PLC0415  of the extra `compile`
        from rich.console import Console  # noqa: PLC0415

        columns = (bars.BarColumn(), bars.MofNCompleteColumn(), bars.TimeElapsedColumn(), "{task.description}")
        with bars.Progress(*columns, console=Console(stderr=True), transient=True) as live:
            task = live.add_task("", total=None)
            yield lambda key, done, total: live.update(task, description=key, completed=done, total=total)
        return
    yield lambda key, done, total: echo(f"{done + 1} of {total}: {key}", err=True)


def describe(progress: Progress) -> str:
    """`loss 0.4321, rate 0.01, 12 s left`"""
    return f"loss {progress.loss:.4f}, rate {progress.lr:.3g}, {format_seconds(progress.seconds_left)} left"


def format_seconds(seconds: float) -> str:
    """`42 s`, `3:07` or `1:02:03`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _is_shown(progress: Progress) -> bool:
    return progress.step == progress.steps or progress.step % max(1, round(progress.steps * _SHOWN_EVERY)) == 0


class _Log:
    def on_progress(self, progress: Progress) -> None: ...

    def say(self, line: str) -> None:
        echo(line, err=True)


class _Line:
    def on_progress(self, progress: Progress) -> None:
        if _is_shown(progress):
            line = f"epoch {progress.epoch + 1}, step {progress.step}/{progress.steps}, {describe(progress)}"
            click.echo(f"\r\033[K{line}", err=True, nl=progress.step == progress.steps)

    def say(self, line: str) -> None:
        click.echo("\r\033[K", err=True, nl=False)
        echo(line, err=True)


class _Bar:
    def __init__(self, live: rich.progress.Progress):
        self._live, self._task = live, None

    def on_progress(self, progress: Progress) -> None:
        if self._task is None:
            self._task = self._live.add_task("", total=progress.steps, figures="")
        if _is_shown(progress):
            epoch, figures = f"epoch {progress.epoch + 1}", describe(progress)
            self._live.update(self._task, completed=progress.step, description=epoch, figures=figures)

    def say(self, line: str) -> None:
        self._live.console.print(line, markup=False, highlight=False)
