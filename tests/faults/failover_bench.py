"""The sixteen faults of FailoverBench (methodology v0.1) against an edge over real sockets, and the verdicts.

    python -m tests.faults.failover_bench                 # the published timings: about four minutes
    python -m tests.faults.failover_bench --profile quick # the same faults, shorter: what the tests run

The scenarios, their checks and the four verdicts follow that benchmark's published methodology and catalogue
(github.com/failoverbench/failoverbench); the provider, the runner and the words are written anew. Every system gets
the same means there: two retries, 30 s for a request, one fallback model, no cache. A verdict has two witnesses, what
the caller got and what the provider saw.

pass     the whole answer came (S13: a clean error), and every check holds
partial  the same, but an advisory check does not hold
safe     no answer, but a clean error in time
fail     a truncated answer shown as a success, no end in time, or a required check does not hold
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from tests.faults.harness import Answer, RunningEdge, running_edge
from tests.upstream import DONE, Exchange, Script, Upstream, chunk, event, refusal

ANSWER = " ".join(f"word{number}" for number in range(1, 61))
_WORDS = ANSWER.split()
_CUT_AFTER, _STALL_AFTER, _MALFORMED_AT = 40, 20, 10


class Profile(NamedTuple):
    """Seconds. `deadlines` are the edge's; a request may take `budget` in all."""

    retry_after: int
    slow: float
    stall: float
    silence: float
    outage: float
    gap: float
    requests: int
    interval: float
    budget: float
    slow_limit: float
    deadlines: dict[str, float]


PROFILES = {
    "full": Profile(2, 20, 30, 120, 60, 0.015, 20, 4.0, 30, 15, {}),
    "quick": Profile(
        1, 2, 2, 10, 6, 0.001, 10, 1.2, 10, 1.9, {"connect": 1.0, "first_token": 0.8, "stall": 0.8, "total": 10.0}
    ),
}


class Seen(NamedTuple):
    """One request at the provider: seconds since the scenario began, and whether it was a prefill that is refused."""

    at: float
    model: str
    answered_well: bool
    prefill_refused: bool


class Provider:
    """A fake provider whose models each break in one way; the log begins anew with every scenario."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.upstream = Upstream()
        self.upstream.scripts = {model: self._logged(script) for model, script in self._scripts().items()}
        self.log: list[Seen] = []
        self._begun = 0.0

    def begin(self) -> None:
        """A scenario starts."""
        self.log, self._begun = [], time.monotonic()

    def now(self) -> float:
        """Seconds since the scenario began."""
        return time.monotonic() - self._begun

    def _logged(self, script: Callable[[Exchange, int], Awaitable[bool]]) -> Script:
        async def logged(exchange: Exchange) -> None:
            model, at = exchange.received.fields["model"], self.now()
            number = sum(seen.model == model for seen in self.log) + 1
            refused = model == "ok-without-prefill" and exchange.received.fields["messages"][-1]["role"] == "assistant"
            place = len(self.log)
            self.log.append(Seen(at, model, False, refused))
            well = await script(exchange, number)
            with suppress(IndexError):  # a request of the scenario before
                self.log[place] = self.log[place]._replace(answered_well=well)

        return logged

    def _scripts(self) -> dict[str, Callable[[Exchange, int], Awaitable[bool]]]:
        return {
            "ok": self._answer,
            "ok-without-prefill": self._without_prefill,
            "s01": self._once(refusal(429, "rate_limit_exceeded", retry_after=str(self.profile.retry_after))),
            "s02": self._always(refusal(429, "rate_limit_exceeded")),
            "s03": self._once(refusal(500, "server_error")),
            "s04": self._always(refusal(503, "overloaded")),
            "s05": self._once(_reset),
            "s06": self._always(self._silent),
            "s07": self._slow,
            "s08": self._cut,
            "s09": self._stalled,
            "s10": self._malformed,
            "s11": self._without_done,
            "s12": self._always(refusal(400, "context_length_exceeded", "the maximum context length is 8192 tokens")),
            "s13": self._always(refusal(400, "content_policy_violation", "rejected by the safety system")),
            "s14": self._cut,
            "s15": self._down,
            "s16": self._always(refusal(503, "overloaded")),
        }

    def _once(self, script: Script) -> Callable[[Exchange, int], Awaitable[bool]]:
        async def once(exchange: Exchange, number: int) -> bool:
            if number > 1:
                return await self._answer(exchange, number)
            await script(exchange)
            return False

        return once

    @staticmethod
    def _always(script: Script) -> Callable[[Exchange, int], Awaitable[bool]]:
        async def always(exchange: Exchange, _: int) -> bool:
            await script(exchange)
            return False

        return always

    async def _answer(self, exchange: Exchange, _: int = 0) -> bool:
        fields = exchange.received.fields
        told = _told(fields["messages"])
        if not exchange.wants_stream:
            message = {"role": "assistant", "content": ANSWER.removeprefix(told)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            await exchange.json({"model": fields["model"], "choices": [choice], "usage": _usage(len(_WORDS))})
            return True
        await exchange.begin_stream()
        left = _WORDS[len(told.split()) :]
        await self._say(exchange, left, goes_on=bool(told))
        await self._finish(exchange, len(left))
        return True

    async def _without_prefill(self, exchange: Exchange, number: int) -> bool:
        if exchange.received.fields["messages"][-1]["role"] == "assistant":
            await refusal(400, "invalid_prefill", "this model takes no prefill")(exchange)
            return False
        return await self._answer(exchange, number)

    async def _silent(self, exchange: Exchange) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self.profile.silence):
                await exchange.client_gone()
        exchange.hang_up()

    async def _slow(self, exchange: Exchange, _: int) -> bool:
        await exchange.begin_stream()
        await asyncio.sleep(self.profile.slow)
        await self._say(exchange, _WORDS)
        await self._finish(exchange, len(_WORDS))
        return True

    async def _cut(self, exchange: Exchange, _: int) -> bool:
        await exchange.begin_stream()
        await self._say(exchange, _WORDS[:_CUT_AFTER])
        exchange.hang_up()
        return False

    async def _stalled(self, exchange: Exchange, _: int) -> bool:
        await exchange.begin_stream()
        await self._say(exchange, _WORDS[:_STALL_AFTER])
        await asyncio.sleep(self.profile.stall)
        exchange.hang_up()
        return False

    async def _malformed(self, exchange: Exchange, _: int) -> bool:
        await exchange.begin_stream()
        await self._say(exchange, _WORDS[:_MALFORMED_AT])
        await exchange.send(b'data: {"choices": [{"delta": {"content": \n\n')
        await self._say(exchange, _WORDS[_MALFORMED_AT:], goes_on=True)
        await self._finish(exchange, len(_WORDS))
        return False

    async def _without_done(self, exchange: Exchange, _: int) -> bool:
        await exchange.begin_stream()
        await self._say(exchange, _WORDS)
        await self._finish(exchange, len(_WORDS), done=False)
        return True

    async def _down(self, exchange: Exchange, number: int) -> bool:
        if self.now() >= self.profile.outage:
            return await self._answer(exchange, number)
        await refusal(503, "overloaded")(exchange)
        return False

    async def _say(self, exchange: Exchange, texts: Sequence[str], *, goes_on: bool = False) -> None:
        model = exchange.received.fields["model"]
        for number, text in enumerate(texts):
            await exchange.send(chunk({"content": f" {text}" if number or goes_on else text}, model=model))
            await asyncio.sleep(self.profile.gap)

    async def _finish(self, exchange: Exchange, count: int, *, done: bool = True) -> None:
        model = exchange.received.fields["model"]
        usage = [event({"model": model, "choices": [], "usage": _usage(count)})] if exchange.wants_usage else []
        await exchange.send(chunk(finish="stop", model=model), *usage, *([DONE] if done else []))
        await exchange.end()


async def _reset(exchange: Exchange) -> None:
    exchange.reset()


def _told(messages: Sequence[dict[str, Any]]) -> str:
    """The text that the last message asks to go on from."""
    last = messages[-1]
    told = last["content"].strip() if last["role"] == "assistant" else ""
    return told if ANSWER.startswith(told) else ""


def _usage(count: int) -> dict[str, int]:
    return {"prompt_tokens": 20, "completion_tokens": count, "total_tokens": 20 + count}


class Call(NamedTuple):
    """What the caller got, and after how many seconds. `ended` is False when it was given up."""

    ended: bool
    seconds: float
    text: str = ""
    error: str = ""
    model: str = ""
    usage: bool = False

    @property
    def succeeded(self) -> bool:
        """By what was said: an end, and no error."""
        return self.ended and not self.error

    @property
    def whole(self) -> bool:
        """Every word of it."""
        return self.succeeded and " ".join(self.text.split()) == ANSWER


class Outcome(NamedTuple):
    """Both witnesses of one scenario."""

    call: Call
    log: list[Seen]
    primary: str
    fallback: str
    alive_after: bool
    sequence: tuple[tuple[float, Call], ...] = ()

    @property
    def primary_times(self) -> list[float]:
        """When the model that was asked for was tried."""
        return [seen.at for seen in self.log if seen.model == self.primary]


class Check(NamedTuple):
    """`holds` says whether it does; an advisory one that does not makes a pass a partial."""

    name: str
    holds: Callable[[Outcome, Profile], bool]
    advisory: bool = False


class Scenario(NamedTuple):
    """After `limit` seconds it is a hang; `ideal` is "error" where no answer is right."""

    id: str
    title: str
    limit: float
    checks: tuple[Check, ...] = ()
    fallback: str = "ok"
    ideal: str = "success"

    @property
    def model(self) -> str:
        """The model that breaks like this."""
        return self.id.lower()


def _tries(low: int, high: int) -> Callable[[Outcome, Profile], bool]:
    return lambda outcome, _: low <= len(outcome.primary_times) <= high


def _within(seconds: float) -> Callable[[Outcome, Profile], bool]:
    return lambda outcome, _: outcome.call.ended and outcome.call.seconds <= seconds


def _at_most(count: int, seconds: float) -> Callable[[Outcome, Profile], bool]:
    return lambda outcome, _: sum(at < seconds for at in outcome.primary_times) <= count


def _waited(outcome: Outcome, profile: Profile) -> bool:
    times = outcome.primary_times
    return len(times) > 1 and times[1] - times[0] >= 0.9 * profile.retry_after


def _first_token_limit(outcome: Outcome, profile: Profile) -> bool:
    return outcome.call.seconds <= profile.slow_limit


def _alive(outcome: Outcome, _: Profile) -> bool:
    return outcome.alive_after


def _whole(outcome: Outcome, _: Profile) -> bool:
    return outcome.call.whole


def _usage_present(outcome: Outcome, _: Profile) -> bool:
    return outcome.call.usage


def _no_refused_prefill_shown(outcome: Outcome, _: Profile) -> bool:
    return outcome.call.succeeded or not any(seen.prefill_refused for seen in outcome.log)


def _fallbacks_name(outcome: Outcome, _: Profile) -> bool:
    return outcome.call.model == outcome.fallback


def _served_in_the_outage(outcome: Outcome, profile: Profile) -> bool:
    during = [call for at, call in outcome.sequence if at < profile.outage]
    return bool(during) and all(call.succeeded for call in during)


def _back_in_time(outcome: Outcome, profile: Profile) -> bool:
    well = [seen.at for seen in outcome.log if seen.model == outcome.primary and seen.answered_well]
    return bool(well) and min(well) - profile.outage <= 30


_FEW = Check("bounded attempts", _tries(0, 6))
SCENARIOS = (
    Scenario(
        "S01",
        "429 with Retry-After, once",
        20,
        (
            Check("asked again", _tries(2, 99), advisory=True),
            Check("Retry-After honoured", _waited, advisory=True),
            Check("no hammering", _at_most(2, 1.5)),
        ),
    ),
    Scenario("S02", "429 without Retry-After, always", 40, (Check("no hammering", _at_most(4, 3)), _FEW)),
    Scenario("S03", "500 once", 20, (Check("the same provider asked again", _tries(2, 99), advisory=True),)),
    Scenario("S04", "503 always", 40, (_FEW,)),
    Scenario("S05", "TCP reset before the headers, once", 20),
    Scenario(
        "S06",
        "no reply at all",
        130,
        (Check("within the budget", _within(100)), Check("silent route left alone", _tries(0, 1), advisory=True)),
    ),
    Scenario("S07", "slow first token", 60, (Check("first token limited", _first_token_limit, advisory=True),)),
    Scenario("S08", "cut after 40 of 60 words", 40),
    Scenario("S09", "stalls after 20 words", 70, (Check("bounded", _within(45)), Check("alive after", _alive))),
    Scenario(
        "S10", "one malformed event", 30, (Check("alive after", _alive), Check("whole answer", _whole, advisory=True))
    ),
    Scenario(
        "S11",
        "no [DONE] at the end",
        30,
        (Check("ended promptly", _within(8)), Check("usage", _usage_present, advisory=True)),
    ),
    Scenario("S12", "context length exceeded", 20, (Check("asked once", _tries(1, 1)),)),
    Scenario("S13", "content filter", 20, (Check("asked once", _tries(1, 1)),), ideal="error"),
    Scenario(
        "S14",
        "cut, and a fallback that refuses prefill",
        40,
        (Check("refusal of the prefill not shown", _no_refused_prefill_shown),),
        fallback="ok-without-prefill",
    ),
    Scenario(
        "S15",
        "down for a while, then sound",
        200,
        (Check("served in the outage", _served_in_the_outage), Check("back within 30 s", _back_in_time)),
    ),
    Scenario(
        "S16",
        "accounting of a fail-over",
        40,
        (Check("the fallback's name", _fallbacks_name), Check("usage", _usage_present, advisory=True), _FEW),
    ),
)


class Verdict(NamedTuple):
    """`word` is pass, partial, safe or fail; `why` names what does not hold."""

    word: str
    why: str


def judge(scenario: Scenario, outcome: Outcome, profile: Profile) -> Verdict:
    """The table in the module's docstring."""
    call = outcome.call
    if not call.ended:
        return Verdict("fail", "no end in time")
    if scenario.ideal == "success" and call.succeeded and not call.whole:
        return Verdict("fail", "a truncated answer shown as a success")
    broken = [check for check in scenario.checks if not check.holds(outcome, profile)]
    if required := [check.name for check in broken if not check.advisory]:
        return Verdict("fail", ", ".join(required))
    if scenario.ideal == "error" and call.succeeded:
        return Verdict("partial", "answered around the refusal")
    if scenario.ideal == "success" and not call.whole:
        return Verdict("safe", call.error)
    return Verdict("partial", ", ".join(check.name for check in broken)) if broken else Verdict("pass", "")


async def run(scenario: Scenario, edge: RunningEdge, provider: Provider) -> Outcome:
    """One scenario, and a healthy request after it."""
    provider.begin()
    sequence: list[tuple[float, Call]] = []
    if scenario.id == "S15":
        for number in range(provider.profile.requests):
            await asyncio.sleep(max(0.0, number * provider.profile.interval - provider.now()))
            sequence.append((provider.now(), await call(edge, scenario.model, limit=scenario.limit)))
        last = next((made for _, made in sequence if not made.whole), sequence[-1][1])
    else:
        last = await call(edge, scenario.model, limit=scenario.limit)
    log = list(provider.log)
    alive = (await call(edge, "ok", limit=10, stream=False)).whole
    return Outcome(last, log, scenario.model, scenario.fallback, alive, tuple(sequence))


async def call(edge: RunningEdge, model: str, *, limit: float, stream: bool = True) -> Call:
    """Ask once, as a careful client would."""
    begun = time.monotonic()
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if stream else {}
    try:
        async with asyncio.timeout(limit):
            answer = await edge.chat(model=model, stream=stream, **options)
    except TimeoutError:
        return Call(ended=False, seconds=limit)
    return _read(answer, time.monotonic() - begun)


def _read(answer: Answer, seconds: float) -> Call:
    if answer.status != 200:
        return Call(True, seconds, error=f"{answer.status} {answer.error['code']}")
    if "event-stream" not in answer.headers["content-type"]:
        fields = answer.fields
        return Call(True, seconds, answer.text(), model=fields["model"], usage=bool(fields.get("usage")))
    chunks = answer.chunks
    errors = [json.dumps(chunk["error"]) for chunk in chunks if chunk.get("error")]
    error = errors[0] if errors else "" if answer.whole else "the connection broke"
    models = [chunk["model"] for chunk in chunks if chunk.get("model")]
    usage = any(chunk.get("usage") for chunk in chunks)
    return Call(True, seconds, answer.text(), error, models[-1] if models else "", usage)


def bench_edge(provider: Provider, *, prefill: bool) -> Any:
    """An edge over the provider, with the means that the benchmark gives everybody."""
    names = ["ok", "ok-without-prefill", *(scenario.model for scenario in SCENARIOS)]
    backend = {
        "name": "provider",
        "kind": "api",
        "base_url": provider.upstream.base_url,
        "models": {name: name for name in names},
        "prefill": prefill,
    }
    models = [{"name": scenario.model, "fallback": [scenario.fallback]} for scenario in SCENARIOS]
    deadlines = provider.profile.deadlines or {"total": provider.profile.budget}
    return running_edge(backend, model=models, answers={"exact": False}, retry={"attempts": 3}, deadlines=deadlines)


async def score(profile: Profile, *, prefill: bool, only: Sequence[str] = ()) -> dict[str, tuple[Verdict, Outcome]]:
    """All scenarios, one after the other, through one edge."""
    provider = Provider(profile)
    verdicts = {}
    async with provider.upstream, bench_edge(provider, prefill=prefill) as edge:
        for scenario in SCENARIOS:
            if only and scenario.id not in only:
                continue
            print(f"{scenario.id} {scenario.title}...", file=sys.stderr, flush=True)
            outcome = await run(scenario, edge, provider)
            verdicts[scenario.id] = judge(scenario, outcome, profile), outcome
    return verdicts


def main() -> int:
    """Print a table; exit status 1 when something is no pass."""
    parser = argparse.ArgumentParser(description="The sixteen faults of FailoverBench against an edge of this program.")
    parser.add_argument("--profile", choices=sorted(PROFILES), default="full", help="default: full")
    parser.add_argument("--prefill", action="store_true", help="tell the edge that the provider takes a prefill")
    parser.add_argument("--only", nargs="*", default=(), metavar="S01", help="some scenarios only")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    verdicts = asyncio.run(score(PROFILES[args.profile], prefill=args.prefill, only=args.only))
    if args.json:
        print(json.dumps({id: {"verdict": verdict.word, "why": verdict.why} for id, (verdict, _) in verdicts.items()}))
    else:
        for scenario in SCENARIOS:
            if scenario.id in verdicts:
                verdict, outcome = verdicts[scenario.id]
                tries = f"{len(outcome.primary_times)} of {len(outcome.log)} attempts at the model asked for"
                print(f"{scenario.id}  {verdict.word:7}  {outcome.call.seconds:6.1f} s  {tries:45}  {scenario.title}")
                if verdict.why:
                    print(f"     {verdict.why}")
        passed = sum(verdict.word == "pass" for verdict, _ in verdicts.values())
        print(f"{passed} of {len(verdicts)} pass ({args.profile} profile)")
    return 0 if all(verdict.word == "pass" for verdict, _ in verdicts.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
