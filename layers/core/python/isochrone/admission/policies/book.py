"""One set of rules, ready to be asked: the same question is asked of Cedar once a minute."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

from isochrone.admission.policies import Action, Asker, Decision, cedar
from isochrone.admission.policies.engine import Engine, Verdict
from isochrone.admission.policies.facts import Question, context, local_times, question_of
from isochrone.settings import Policy

MOST_KEPT = 2_048

Regions = frozenset[str] | None


class PolicyBook:
    """`regions` are all where a request could be answered at all. Times are epoch seconds.

    Raises ValueError for rules that cannot be used; `isochrone.policy_contradictions` says why in an operator's words.
    """

    def __init__(self, policies: Sequence[Policy], regions: Collection[str]) -> None:
        self.policies = tuple(policies)
        self._engine = Engine([cedar.rule(policy) for policy in policies])
        self._order = {policy.id: i for i, policy in enumerate(policies)}
        self._everywhere = frozenset(regions)
        self._names_regions = any(policy.resource.region for policy in policies)
        self._tags = sorted({tag for policy in policies for tag in policy.principal.tag})
        times = [time for policy in policies if (time := policy.condition.time)]
        self._zones = {time.zone: ZoneInfo(time.zone) for time in times if cedar.has_window(time)}
        self._moments = sorted(m.timestamp() for time in times for m in (time.after, time.before) if m)
        self._steps = sorted(_token_steps(policies))
        self._known: dict[Any, Decision] = {}
        self._period: tuple[int, int] = (0, 0)

    @property
    def asks_tokens(self) -> bool:
        """Does any rule go by how many tokens a request may use?"""
        return bool(self._steps)

    def decide(
        self,
        caller: Asker,
        action: Action,
        *,
        model: str | None = None,
        regions: Regions = None,
        tokens: int | None = None,
        now: float,
    ) -> Decision:
        """May `caller` do it, and for `generate` in which of `regions` (None: of all)? Never raises."""
        question = question_of(caller, action, model=model, tokens=tokens)
        known = self._known_in(now)
        key = (question.identity, regions, None if tokens is None else bisect_right(self._steps, tokens))
        decision = known.get(key)
        if decision is None:
            decision = known[key] = self._decided(question, regions, now)
        return decision

    def _known_in(self, now: float) -> dict[Any, Decision]:
        """What was decided in this minute, and on this side of every moment that a rule names."""
        period = (int(now // 60), bisect_right(self._moments, now))
        if period != self._period or len(self._known) >= MOST_KEPT:
            self._period, self._known = period, {}
        return self._known

    def _decided(self, question: Question, regions: Regions, now: float) -> Decision:
        local = local_times(self._zones, now)
        ask = partial(self._asked, question, local=local, now=now)
        verdict = ask(None)
        if verdict.allowed or not self._names_regions or question.action != "generate":
            return self._told(verdict, None)
        # Who may not say nothing of the region may perhaps say one.
        candidates = self._everywhere if regions is None else regions
        verdicts = {region: ask(region) for region in sorted(candidates)}
        allowed = frozenset(region for region, one in verdicts.items() if one.allowed)
        if not allowed:
            return self._told(next(iter(verdicts.values()), verdict), None)
        decision = self._told(verdicts[min(allowed)], allowed)
        return decision._replace(reason=f"{decision.reason} in {', '.join(sorted(allowed))}")

    def _asked(
        self, question: Question, region: str | None, *, local: dict[str, dict[str, int]], now: float
    ) -> Verdict:
        return self._engine.ask(question.action, context(question, region, tags=self._tags, local=local, now=now))

    def _told(self, verdict: Verdict, regions: Regions) -> Decision:
        if verdict.failed:
            return Decision(False, None, f"the rules could not be applied: {verdict.failed}")
        rule = min(verdict.rules, key=self._order.__getitem__, default=None)
        if verdict.allowed:
            return Decision(True, rule, f"rule {rule!r} allows it", regions)
        return Decision(False, rule, f"rule {rule!r} denies it" if rule else "no rule allows it")


def _token_steps(policies: Iterable[Policy]) -> set[int]:
    """The numbers of tokens at which some rule begins to say something else."""
    conditions = [tokens for policy in policies if (tokens := policy.condition.tokens)]
    least = {tokens.min for tokens in conditions if tokens.min is not None}
    return least | {tokens.max + 1 for tokens in conditions if tokens.max is not None}
