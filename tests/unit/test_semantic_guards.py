"""Questions that look alike and must not share an answer."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.answers.semantic.guards import kinds, objection
from isochrone.answers.semantic.words import read

DATA = Path(__file__).parent.parent / "data"

TWINS = [
    ("numbers", "How do I lose 5 kg?", "How do I lose 15 kg?"),
    ("numbers", "Who won World War 1?", "Who won World War 2?"),
    ("numbers", "Who was the first CEO of Microsoft?", "Who is the CEO of Microsoft?"),
    ("numbers", "What was the score on June 3?", "What was the score on June 13?"),
    ("numbers", "3000元以下最好的手机", "5000元以下最好的手机"),
    ("numbers", "三千以内的手机", "五千以内的手机"),
    ("numbers", "How do I set an alarm for 7:00?", "How do I set an alarm for 7:30?"),
    ("units", "How do I lose 5 kg in a month?", "How do I lose 5 pounds in a month?"),
    ("units", "How do I set an alarm for 7 am?", "How do I set an alarm for 7 pm?"),
    ("units", "一个月减掉5公斤", "一个月减掉5斤"),
    ("measures", "How tall is Everest in meters?", "How tall is Everest in feet?"),
    ("dates", "What is open on Monday?", "What is open on Sunday?"),
    ("dates", "明天天气怎么样", "今天天气怎么样"),
    ("language", "Write a poem about the sea", "Write a poem about the sea in German"),
    ("language", "How do I reset it", "怎么重置"),
    ("language", "早上好用法语怎么说", "早上好用英语怎么说"),
    ("question", "Who invented the telephone?", "When was the telephone invented?"),
    ("question", "Why did Alice pay Bob?", "Did Alice pay Bob?"),
    ("question", "Can I get a refund?", "How can I get a refund?"),
    ("question", "长城是谁建的", "长城是什么时候建的"),
    ("question", "可以提前还款吗", "怎么提前还款"),
    ("negation", "What should I eat before a workout?", "What should I not eat before a workout?"),
    ("negation", "Why does it work?", "Why doesn't it work?"),
    ("negation", "How do I lock my phone?", "How do I unlock my phone?"),
    ("negation", "Is it legal?", "Is it illegal?"),
    ("negation", "感冒了能吃什么", "感冒了不能吃什么"),
    ("negation", "怎么安装微信", "微信安装失败怎么办"),
    ("person", "你叫什么名字", "我叫什么名字"),
    ("opposites", "How do I increase the volume?", "How do I decrease the volume?"),
    ("opposites", "What are the cheapest flights?", "What are the most expensive flights?"),
    ("opposites", "Is it safe before pregnancy?", "Is it safe after pregnancy?"),
    ("opposites", "怎么打开自动续费", "怎么关闭自动续费"),
    ("opposites", "女生适合学什么", "男生适合学什么"),
    ("undone", "How do I subscribe to the list?", "How do I cancel my subscription to the list?"),
    ("undone", "怎么拉黑微信好友", "怎么取消拉黑微信好友"),
    ("qualities", "What is the fastest way to the airport?", "What is the cheapest way to the airport?"),
    ("reversed", "What flights go from Paris to Rome?", "What flights go from Rome to Paris?"),
    ("reversed", "Is Java faster than Python?", "Is Python faster than Java?"),
    ("reversed", "Did Alice pay Bob?", "Did Bob pay Alice?"),
    ("reversed", "Did Bob pay Alice?", "Was Bob paid by Alice?"),
    ("reversed", "How do I convert miles to kilometers?", "How can I convert kilometers into miles?"),
    ("reversed", "从北京到上海的机票", "从上海到北京的机票"),
    ("reversed", "张三给李四打电话了吗", "李四给张三打电话了吗"),
    ("reversed", "怎么把微信里的钱转到支付宝", "怎么把支付宝里的钱转到微信"),
    ("names", "Can I travel to Spain?", "Can I travel to Serbia?"),
    ("names", "Does vitamin C help?", "Does vitamin D help?"),
    ("names", "怎么压缩PDF文件", "怎么压缩CSV文件"),
    ("code", "What does `f()` do?", "What does `g()` do?"),
    ("code", "What does list(x) do?", "What does List(x) do?"),
    ("code", "What does grep -v do?", "What does grep -V do?"),
    ("signs", "What does x > y mean?", "What does x < y mean?"),
    ("signs", "What is 7 + 8?", "What is 7 - 8?"),
    ("signs", "What is 5 + 2?", "What is -5 + 2?"),
    ("signs", "What is 5!", "What is 5?"),
    ("signs", "What is 10²?", "What is 102?"),
    ("signs", "What does 😀 mean?", "What does 😢 mean?"),
    ("signs", "What does this mean: ?", "What does this mean: ."),
    ("signs", "9÷3等于几", "9×3等于几"),
    ("capitals", "How many MB are in a GB?", "How many Mb are in a Gb?"),
    ("capitals", "What does IT do?", "What does it do?"),
    ("capitals", "What does Polish mean?", "What does polish mean?"),
    ("person", "What is my balance?", "What is your balance?"),
    ("opposites", "Do all birds fly?", "Do any birds fly?"),
    ("opposites", "May I smoke here?", "Must I smoke here?"),
    ("reversed", "Who killed Hamlet?", "Whom did Hamlet kill?"),
    ("reversed", "Which team beat Arsenal?", "Which team did Arsenal beat?"),
    ("reversed", "Do cats like dogs?", "Do dogs like cats?"),
    ("reversed", "What should employers tell employees?", "What should employees tell employers?"),
    ("reversed", "Should I eat before running?", "Should I run before eating?"),
    ("reversed", "Is B bigger than A?", "Is A bigger than B?"),
    ("reversed", "How do I teach my son?", "How does my son teach me?"),
    ("reversed", "Can I replace milk with water?", "Can I replace water with milk?"),
    ("reversed", "谁打败了阿森纳", "阿森纳打败了谁"),
    ("reversed", "我欠他多少钱", "他欠我多少钱"),
    ("reversed", "能不能用信用卡还花呗", "能不能用花呗还信用卡"),
    ("names", "Who is Maria Curie?", "Who is Marie Curie?"),
    ("names", "What is the population of Niger?", "What is the population of Nigeria?"),
    ("names", "Where was Paris Hilton born?", "Where was Paris born?"),
    ("variant", "how much does an iphone 14 pro cost", "how much does an iphone 14 pro max cost"),
    ("particle", "How do I pick a lock?", "How do I pick up a lock?"),
]

SAME = [
    ("How do I reset my password?", "What is the way to reset my password?"),
    ("How do I lose 5 kg?", "What is the best way to lose 5 kilos?"),
    ("How many calories are in a banana?", "How many calories does one banana have?"),
    ("What causes acne?", "Why do people get acne?"),
    ("Did Alice pay Bob?", "Was Bob paid by Alice?"),
    ("What is the distance between London and Oslo?", "What is the distance between Oslo and London?"),
    ("Is $1,000 a lot?", "Is 1000 dollars a lot?"),
    ("When will it arrive?", "How long does it take to arrive?"),
    ("Can dogs eat grapes?", "Is it okay for dogs to eat grapes?"),
    ("WHAT IS RUST", "what is rust?"),
    ("How do I reset my password?", "how do I  reset my password ?!"),
    ("What is DNA?", "what is dna"),
    ("How do I find my account number?", "How do you find your account number?"),
    ("How do I log-in?", "How do I log in?"),
    ("Can I mix milk with water?", "Can I mix water with milk?"),
    ("密码修改怎么弄", "怎么修改密码"),
    ("怎么解冻账户", "账户怎么解冻"),
    ("能不能提前还款", "可以提前还款吗"),
    ("一美元等于多少人民币", "1美元是多少人民币"),
    ("太阳和月亮哪个大", "月亮和太阳哪个大"),
    ("新卡怎么激活", "如何激活新卡"),
]


@pytest.mark.parametrize(("reason", "one", "other"), TWINS)
def test_twins_are_told_apart_both_ways(reason: str, one: str, other: str) -> None:
    assert objection(one, other) == reason
    assert objection(other, one) == reason


@pytest.mark.parametrize(("one", "other"), SAME)
def test_nothing_speaks_against_asking_the_same_in_other_words(one: str, other: str) -> None:
    assert objection(one, other) is None
    assert objection(other, one) is None


@given(st.text(max_size=200))
def test_no_question_differs_from_itself(text: str) -> None:
    assert objection(text, text) is None


@given(st.text(max_size=80), st.text(max_size=80))
def test_an_objection_does_not_depend_on_who_asked_first(one: str, other: str) -> None:
    assert (objection(one, other) is None) == (objection(other, one) is None)


def groups(language: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / f"twins_{language}.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_guards_refuse_many_look_alikes_and_hardly_any_paraphrase(language: str) -> None:
    twins = [(ask, other) for g in groups(language) for ask in (g["ask"], *g["same"]) for other in g["other"]]
    same = [pair for g in groups(language) for pair in combinations((g["ask"], *g["same"]), 2)]
    refused = [sum(objection(*pair) is not None for pair in pairs) / len(pairs) for pairs in (twins, same)]
    assert refused[0] > 0.4
    assert refused[1] < 0.06


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("How long does it take?", {"duration"}),
        ("How do I do it?", {"manner"}),
        ("Can you explain how it works?", {"manner"}),
        ("Is it true when it rains?", {"whether"}),
        ("What is Rust?", set()),
        ("几点开门", {"time"}),
        ("明天天气怎么样", set()),
    ],
)
def test_the_kind_of_a_question_is_what_it_asks_for_first(text: str, kind: set[str]) -> None:
    assert kinds(read(text)) == kind
