"""However rules are made fewer, and in whatever order regions hear of it, nothing that was taken back returns."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from isochrone.answers.completion import Answer
from isochrone.answers.rulebook import EVERYTHING, SKEW_SECONDS, Rule, Rulebook, tidied

HOUR = 3600.0
MARKS = ["f1", "f2"]
MODELS = ["m", "n"]
QUESTIONS = ["How far is the Moon?", None]
# Close enough together for the skew of clocks to matter, and far enough apart for it not to.
moments = st.integers(0, 6).map(lambda minutes: minutes * 60.0)

targets = st.one_of(
    st.sampled_from(MARKS).map(lambda mark: {"answer": mark}),
    st.sampled_from([EVERYTHING, "*moon*"]).map(lambda pattern: {"pattern": pattern}),
)
rules = st.builds(
    lambda at, target, model: Rule("a", at, model=model, **target),
    moments,
    targets,
    st.sampled_from([None, *MODELS]),
)
answers = st.tuples(
    st.sampled_from(MARKS),
    st.builds(
        lambda at, question, model: Answer("chat", "pool", at, {}, model=model, question=question),
        moments,
        st.sampled_from(QUESTIONS),
        st.sampled_from(MODELS),
    ),
)


def rulebook(rules: dict[str, Rule]) -> Rulebook:
    book = Rulebook()
    book.replace(rules)
    return book


@settings(max_examples=500)
@given(st.lists(rules, max_size=30), moments, st.integers(2, 20), st.sampled_from([300.0, HOUR]), answers)
def test_nothing_that_was_taken_back_returns(
    said: list[Rule], now: float, most: int, life: float, known: tuple[str, Answer]
) -> None:
    before = {rule.key: rule for rule in said if rule.revoked_at <= now}
    covered = any(not rulebook({key: rule}).allows("a", *known) for key, rule in before.items())
    assert rulebook(before).allows("a", *known) is not covered
    for later in (now, now + 300, now + HOUR, now + 2 * HOUR):
        tidying = tidied(before, now=later, life=life, most=most)
        without_the_new_one = {key: rule for key, rule in before.items() if key not in tidying.superfluous}
        with_it = {**without_the_new_one, **({tidying.rule.key: tidying.rule} if tidying.rule else {})}
        if covered:
            assert not rulebook(without_the_new_one).allows("a", *known)
            assert not rulebook(with_it).allows("a", *known)
        before = with_it


@given(st.lists(rules, max_size=30), moments, answers)
def test_answer_that_was_begun_after_the_last_word_is_known(
    said: list[Rule], later: float, known: tuple[str, Answer]
) -> None:
    mark, answer = known
    last = max((rule.revoked_at for rule in said), default=0.0)
    new = Answer("chat", "pool", last + SKEW_SECONDS + 1 + later, {}, model=answer.model, question=answer.question)
    assert rulebook({rule.key: rule for rule in said}).allows("a", mark, new)


@given(st.lists(rules, max_size=60), moments, st.integers(2, 20))
def test_rules_become_fewer_in_the_end(said: list[Rule], now: float, most: int) -> None:
    left = {rule.key: rule for rule in said}
    for hour in range(1, 6):
        tidying = tidied(left, now=now + hour * HOUR, life=1e9, most=most)
        left = {key: rule for key, rule in left.items() if key not in tidying.superfluous}
        left |= {tidying.rule.key: tidying.rule} if tidying.rule else {}
    assert len(left) <= most
