"""A hedged first token: when the first attempt stays silent, a second one may start, and the faster of the two wins.

After "The Tail at Scale" (Dean and Barroso, CACM 2013): a second request that waits until the first one is late costs
little and cuts the longest waits. The loser is cancelled at once, which closes its connection and so ends its
generation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

Attempt = Coroutine[Any, Any, T | None]


async def race(
    first: Attempt[T], rival: Callable[[], Attempt[T]], *, after: float, discard: Callable[[T], Awaitable[None]]
) -> T | None:
    """What the faster of two attempts gives; None when both give nothing. What one of them raises ends the race.

    The rival starts after so many seconds of silence. Whatever ends the race, nothing is left running behind it, and
    `discard` gets every answer that nobody can take any more.
    """
    # A task that was created runs up to its first wait before anything can cancel it: its own cleaning up is enough.
    tasks = [asyncio.create_task(first)]
    try:
        if not (await asyncio.wait(tasks, timeout=after))[0]:
            tasks.append(asyncio.create_task(rival()))
        winner = await _first_to_answer(tasks)
        await _call_off([task for task in tasks if task is not winner], discard)
    except BaseException:
        await _call_off(tasks, discard)
        raise
    return winner.result() if winner else None


async def _first_to_answer(tasks: Sequence[asyncio.Task[T | None]]) -> asyncio.Task[T | None] | None:
    waiting = set(tasks)
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in sorted(done, key=lambda task: task.exception() is not None):
            if task.result() is not None:
                return task
    return None


async def _call_off(tasks: Sequence[asyncio.Task[T | None]], discard: Callable[[T], Awaitable[None]]) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        if task.done() and not task.cancelled() and not task.exception() and (answer := task.result()) is not None:
            await discard(answer)
    await asyncio.gather(*tasks, return_exceptions=True)
