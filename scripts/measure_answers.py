#!/usr/bin/env python
"""What known answers cost inside an edge: CPU microseconds to tell requests apart, find answers and tell them again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count

import click

from isochrone.answers.completion import Answer, replay_body, replay_stream
from isochrone.answers.curated.book import CuratedBook
from isochrone.answers.curated.entry import Entry
from isochrone.answers.fingerprint import fingerprint
from isochrone.answers.inquiry import Inquiry
from isochrone.answers.library import Library
from isochrone.answers.memory_tier import MemoryTier
from isochrone.answers.rulebook import Rule, Rulebook
from isochrone.answers.semantic.words import sketch
from isochrone.answers.terms import Terms
from isochrone.api.controls import CacheMode
from isochrone.api.requests import CHAT, Ask
from isochrone.ledger.usage import estimate
from isochrone.stores.memory import MemoryAnswerStore
from measure_plan import cpu_us

NOW = time.time()
ENTRIES, RULES = 10_000, 500
TERMS = Terms(exact=True, ttl=3600.0)


@click.command(help=__doc__)
@click.option("--times", default=500, show_default=True, help="Calls a round.")
@click.option("--rounds", default=7, show_default=True, help="The best of so many counts: the others were disturbed.")
def main(times: int, rounds: int) -> None:
    for what, work in works():
        print(f"{what}: {cpu_us(work, times, rounds):.1f} us")


def works() -> Iterator[tuple[str, Callable[[], object]]]:
    """What is measured, in the order in which a request meets it."""
    for turns in (1, 20, 200):
        yield f"fingerprint of {turns} turns of 200 characters", partial(fingerprint, "t", asking("x" * 200, turns))
    book = CuratedBook(map(entry, range(ENTRIES)), estimate=estimate)
    for what, question in (("found", "what is number 77"), ("not there", "How do I reset my password?")):
        yield f"curated answer among {ENTRIES:,}, {what}", partial(book.look_up, inquiring(question), now=NOW)
    for size in (200, 2_000, 20_000):
        answer = answering(size)
        yield f"answer of {size:,} characters from memory", partial(found, library_with(answer))
        yield "... told again as a body", partial(replay_body, answer, request_id="r", now=NOW)
        again = partial(replay_stream, answer, request_id="r", now=NOW, include_usage=True)
        yield "... told again as a stream", again
    rules, answer = rulebook(), answering(200)
    for when, created in (("newer than all", NOW), ("older than all", 0.0)):
        asked = Answer(operation="chat", backend="b", created=created, body=answer.body, question="What is it?")
        yield f"{RULES} revocations asked of an answer {when}", partial(rules.allows, "t", "mark", asked)
    numbers = count()
    yield "cheap vector of a new question", lambda: sketch(f"How do I reset the password of account {next(numbers)}?")


def asking(text: str, turns: int = 1) -> Ask:
    """A chat of so many turns."""
    messages = [{"role": "user", "content": f"{turn} {text}" if turns > 1 else text} for turn in range(turns)]
    return Ask(CHAT, "m", stream=False, include_usage=False, fields={"model": "m", "messages": messages})


def inquiring(text: str) -> Inquiry:
    return Inquiry("t", asking(text), "mark", text, TERMS, CacheMode.USE)


def entry(number: int) -> Entry:
    return Entry(id=str(number), phrasings=(f"What is number {number}?",), answer=f"It is {number}.")


def answering(size: int) -> Answer:
    """A whole answer of so many characters, in words that differ."""
    message = {"role": "assistant", "content": "".join(f"word {number} " for number in range(size))[:size]}
    usage = {"prompt_tokens": 10, "completion_tokens": size // 4, "total_tokens": 10 + size // 4}
    body = {"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    return Answer(operation="chat", backend="b", created=NOW, body={**body, "usage": usage})


def library_with(answer: Answer) -> Library:
    library = Library(MemoryAnswerStore(), MemoryTier(max_bytes=10_000_000, ttl=300), chance=lambda: 0.5)
    asyncio.run(library.keep(inquiring("What?"), answer))
    return library


def found(library: Library) -> object:
    """A look-up that memory answers, without an event loop: it never waits."""
    try:
        library.look_up(inquiring("What?"), now=NOW).send(None)
    except StopIteration as stop:
        assert stop.value.tier == "memory"
        return stop.value
    raise AssertionError("it waited for the store")


def rulebook() -> Rulebook:
    """As many rules of one tenant as are kept apart."""
    rules = [Rule("t", NOW - 1000 - number, pattern=f"*subject {number}*") for number in range(RULES)]
    book = Rulebook()
    book.replace({rule.key: rule for rule in rules})
    return book


if __name__ == "__main__":
    main()
