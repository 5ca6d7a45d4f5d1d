"""When a known answer may be given, and what comparisons teach."""

from __future__ import annotations

from math import exp
from random import Random

import msgspec
import pytest

from isochrone.answers.semantic.decision import Belief, Experience, Judge, Lessons, Verdict, Weighed
from isochrone.answers.semantic.features import NAMES, features

ASKED, KNOWN = "How can I reset my password?", "What is the way to reset my password?"
JUDGE = Judge(0.02)


def weigh(
    asked: str = ASKED,
    known: str = KNOWN,
    cosine: float | None = 0.99,
    *,
    judge: Judge = JUDGE,
    lessons: Lessons | None = None,
    experience: Experience | None = None,
    chance: float = 0.99,
) -> Weighed:
    return judge.weigh(
        asked, known, cosine, lessons=lessons or Lessons(), experience=experience or Experience(), chance=chance
    )


def test_the_same_text_is_a_hit_without_an_embedding() -> None:
    weighed = weigh("What is Rust?", "what is rust", None)
    assert weighed.verdict is Verdict.HIT
    assert weighed.reason == "same text"


def test_a_guard_outweighs_any_similarity() -> None:
    weighed = weigh("How do I lose 5 kg?", "How do I lose 15 kg?", 1.0)
    assert weighed.verdict is Verdict.MISS
    assert weighed.reason == "numbers"


@pytest.mark.parametrize(
    ("asked", "known"),
    [
        ("What does chmod +x do?", "What does chmod +X do?"),
        ("What is 5!", "What is 5?"),
        ("What is IT?", "What is it?"),
    ],
)
def test_the_same_letters_with_other_signs_or_capitals_are_no_hit(asked: str, known: str) -> None:
    assert weigh(asked, known, 1.0).verdict is Verdict.MISS


def test_without_an_embedding_only_the_same_text_is_known() -> None:
    assert weigh(cosine=None).verdict is Verdict.MISS


def test_a_near_paraphrase_is_a_hit_before_anything_was_learned() -> None:
    assert weigh().verdict is Verdict.HIT
    assert weigh("如何重置密码", "怎么重置密码", 0.998).verdict is Verdict.HIT


def test_what_was_learned_about_other_features_is_forgotten() -> None:
    experience = Experience(beliefs={"en": Belief([9.0] * (len(NAMES) - 1), [0.1])})
    weighed = weigh(experience=experience)
    assert weighed == weigh()
    experience.learn(weighed, same=False)
    assert len(experience.belief("en").mean) == len(NAMES)


def test_a_doubtful_one_is_explored() -> None:
    weighed = weigh(cosine=0.93)
    assert weighed.verdict is Verdict.EXPLORE
    assert weighed.reason == "doubt"
    assert not weighed.audit


def test_nearer_is_never_less_probable() -> None:
    probabilities = [weigh(cosine=0.8 + step / 100).probability for step in range(21)]
    assert probabilities == sorted(probabilities)


def test_a_stricter_bound_gives_fewer_answers() -> None:
    weighed = [weigh(cosine=0.975, judge=Judge(bound)).verdict for bound in (0.001, 0.1)]
    assert weighed == [Verdict.EXPLORE, Verdict.HIT]


def test_some_would_be_hits_are_audited_and_fewer_as_audits_go_by() -> None:
    assert weigh(chance=0.2).audit
    assert not weigh(chance=0.3).audit
    assert weigh(chance=0.2, experience=Experience(audited=50)).verdict is Verdict.HIT
    assert Experience(audited=10_000).audit_share > 0.0


def test_hopeless_is_what_has_hardly_a_word_in_common() -> None:
    assert JUDGE.is_hopeless(0.1)
    assert not JUDGE.is_hopeless(0.6)


def test_an_entry_that_was_wrong_needs_more_to_be_given_again() -> None:
    lessons, before = Lessons(), weigh(cosine=0.98)
    lessons.learn(before, False)
    assert weigh(cosine=0.98, lessons=lessons).probability < before.probability
    assert (lessons.same, lessons.different) == (0, 1)


def test_a_comparison_moves_the_belief_and_makes_it_surer() -> None:
    experience, doubtful = Experience(), weigh(cosine=0.95)
    spread = experience.belief("en").odds(doubtful.features)[1]
    experience.learn(doubtful, True)
    assert weigh(cosine=0.95, experience=experience).probability > doubtful.probability
    assert experience.belief("en").odds(doubtful.features)[1] < spread


def test_languages_learn_apart() -> None:
    experience, chinese = Experience(), weigh("如何重置密码", "怎么重设密码", 0.95)
    experience.learn(weigh(cosine=0.95), False)
    assert weigh("如何重置密码", "怎么重设密码", 0.95, experience=experience) == chinese


def test_the_prior_is_not_changed_by_what_is_learned() -> None:
    fresh = weigh(cosine=0.95).probability
    for _ in range(20):
        Experience().learn(weigh(cosine=0.95), True)
    assert weigh(cosine=0.95).probability == fresh


def test_what_was_weighed_without_features_teaches_nothing() -> None:
    experience = Experience()
    experience.learn(weigh("a?", "a"), True)
    assert experience == Experience()


def test_the_covariance_stays_one_however_much_is_learned() -> None:
    chance, experience = Random(1), Experience()
    for _ in range(3000):
        weighed = weigh(cosine=chance.uniform(0.85, 1.0), experience=experience)
        experience.learn(weighed, chance.random() < 0.5)
    for _ in range(200):
        direction = [chance.gauss(0, 1) for _ in NAMES]
        assert experience.belief("en").odds(direction)[1] > 0.0


def test_what_was_learned_survives_storage_and_stays_small() -> None:
    experience = Experience()
    for asked, known in ((ASKED, KNOWN), ("如何重置密码", "怎么重设密码")):
        experience.learn(weigh(asked, known, 0.95), True)
    packed = msgspec.msgpack.encode(experience)
    assert len(packed) < 2500
    assert msgspec.msgpack.decode(packed, type=Experience) == experience
    assert len(msgspec.msgpack.encode(Lessons(1.5, 0.2, 100, 100))) < 100


class Traffic:
    """Pairs whose features are drawn at random and whose truth follows weights that nobody told the judge."""

    def __init__(self, weights: list[float], seed: int) -> None:
        self.weights = weights
        self.chance = Random(seed)

    def pair(self) -> tuple[tuple[float, ...], bool]:
        measured = (1.0, self.chance.gauss(0.5, 0.8), *(self.chance.random() for _ in NAMES[2:]))
        odds = sum(weight * number for weight, number in zip(self.weights, measured, strict=True))
        return measured, self.chance.random() < 1.0 / (1.0 + exp(-odds))


def serve(traffic: Traffic, prior: Belief, monkeypatch: pytest.MonkeyPatch, requests: int) -> list[tuple[bool, bool]]:
    """(hit, right) of each request; every one that is not a hit is compared."""
    experience, served = Experience(beliefs={"en": prior}), []
    for _ in range(requests):
        measured, same = traffic.pair()
        monkeypatch.setattr("isochrone.answers.semantic.decision.features", lambda *_, found=measured: found)
        weighed = weigh(experience=experience, chance=traffic.chance.random())
        hit = weighed.verdict is Verdict.HIT
        served.append((hit, same))
        if not hit:
            experience.learn(weighed, same)
    return served


def wrong_share(served: list[tuple[bool, bool]]) -> float:
    hits = [right for hit, right in served if hit]
    return hits.count(False) / max(1, len(hits))


def belief(mean: list[float], width: float = 0.2) -> Belief:
    return Belief(mean, [width if row == column else 0.0 for row in range(len(mean)) for column in range(row + 1)])


@pytest.mark.parametrize("seed", range(4))
def test_wrong_answers_stay_below_the_limit_when_the_prior_holds(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    prior = belief([0.0, 3.0] + [0.0] * (len(NAMES) - 2))
    chance = Random(seed)
    truth = [mean + chance.gauss(0, 0.2**0.5) for mean in prior.mean]
    served = serve(Traffic(truth, seed), prior, monkeypatch, 3000)
    assert sum(hit for hit, _ in served) > 300
    assert wrong_share(served) <= JUDGE.limit


@pytest.mark.parametrize("seed", range(4))
def test_a_judge_whose_prior_is_wrong_learns_and_stops(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    credulous = belief([6.0, 3.0] + [0.0] * (len(NAMES) - 2))
    truth = [-2.0, 1.0] + [0.0] * (len(NAMES) - 2)
    served = serve(Traffic(truth, seed), credulous, monkeypatch, 3000)
    early, late = served[:200], served[1000:]
    assert sum(hit for hit, _ in early) > 5
    assert sum(hit and not right for hit, right in late) <= 0.01 * len(late)


def test_audits_raise_every_later_doubt() -> None:
    experience = Experience()
    for _ in range(10):
        experience.learn(weigh(chance=0.0, experience=Experience()), False)
    assert experience.caution > 2.0
    assert experience.wrong == experience.audited == 10


def test_features_do_not_depend_on_who_asked_first() -> None:
    assert features(ASKED, KNOWN, 0.95, (0.9,)) == features(KNOWN, ASKED, 0.95, (0.9,))
    assert len(features(ASKED, KNOWN, 0.95)) == len(NAMES)


def test_where_a_topic_is_crowded_near_means_less() -> None:
    alone, crowded = features(ASKED, KNOWN, 0.95), features(ASKED, KNOWN, 0.95, (0.94, 0.93))
    assert crowded[NAMES.index("gap")] < alone[NAMES.index("gap")]
    assert crowded[NAMES.index("crowd")] < alone[NAMES.index("crowd")]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_weight_of_the_shipped_prior_contradicts_what_its_feature_means(language: str) -> None:
    weights = dict(zip(NAMES, Experience().belief(language).mean, strict=True))
    assert weights["distance"] > 1.0
    assert min(weights[name] for name in ("gap", "crowd", "overlap", "same_words")) >= 0.0
    assert max(weights[name] for name in ("only_one_side", "both_sides", "little", "kind", "length")) <= 0.0
