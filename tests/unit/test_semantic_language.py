from __future__ import annotations

import pytest

from isochrone.answers.semantic.language import language_of

ENGLISH = ["How do I reset my password?", "reset password", "WHAT IS A CAFE", "can't log in", "is 5 > 3?"]
CHINESE = ["怎么修改密码？", "deepseek怎么用api", "我的 iPhone 15 充不了电", "为什么没有额度"]
NEITHER = [
    "Wie setze ich mein Passwort zurück?",
    "comment changer mon mot de passe",
    "como cambio mi clave",
    "precio bitcoin hoy",
    "パスワードを変更したい",
    "비밀번호 변경",
    "как сменить пароль",
    "كيف أغير كلمة المرور",
    "1234 + 5678 = ?",
    "🙂🙂",
    "",
    "Translate 你 to English for me please",
]


@pytest.mark.parametrize("text", ENGLISH)
def test_english_is_told_by_its_little_words(text: str) -> None:
    assert language_of(text) == "en"


@pytest.mark.parametrize("text", CHINESE)
def test_chinese_is_told_by_its_script_also_around_latin_names(text: str) -> None:
    assert language_of(text) == "zh"


@pytest.mark.parametrize("text", NEITHER)
def test_what_is_neither_for_sure_is_neither(text: str) -> None:
    assert language_of(text) is None
