"""English, Chinese, or neither: by script first, then by the little words that every English question is made of.

What it is not sure of it calls neither: such a text has exact answers only.
"""

from __future__ import annotations

import re
from typing import Literal

Language = Literal["en", "zh"]

_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_LATIN = re.compile(r"[A-Za-z]")
_LETTER = re.compile(r"[^\W\d_]")
_WORD = re.compile(r"[a-z']+")

_ENGLISH_WORDS = """
a about above add after again all also always am an and any anyone are as ask at average be because been before best
better between bought buy by call can can't cancel change cheap cheapest check close could cost create day days did
difference do does doesn't doing don't each enough ever every example explain find first fix for from get gets getting
give go going good got had happened happens has have he help her here his how i i'd i'll i'm i've if in into is isn't
it it's its just keep know last learn let like list long lose look made make makes many me mean means more most much
must my name need new no not now of off often old on one only open or order other our out over pay people play please
possible put reason reset same say see send set she should show so some someone start stop take tell than that that's
the their them then there these they thing things think this those through time to too try turn under until up us use
used using very want was way we were what what's when where where's which while who who's whose why will with without
won't word work would write year years yes you your
"""
# Those that English does not have, of languages that are written with the same letters.
_FOREIGN_WORDS = """
aber alle auch auf aus bei beim bitte che chi ci como con cosa cuando cual das dass de del dem den der des di die dit
dos e ein eine einen einer el ela ele elle ella en er es est est-ce et eu for favor fue gibt gli hay hoe hva hvad
hvordan ich ihr il ik ist je jeg kann kan kun la le les leur lo los mais mein mi mich mijn mir mit mon mot muss nach
nao nicht nie no non nos notre nous nu o och oder og om os ou par para pas per perche piu por pour pourquoi puis
quando quanto que quel quelle queria qui quien sao sein si sie sind su sul sur te tu tua um uma un una und uno van vad
var veel voor vous vuoi wann warum was wat wer wie wieso wil wir wo y zu zum zur
"""
_ENGLISH = frozenset(_ENGLISH_WORDS.split())
_FOREIGN = frozenset(_FOREIGN_WORDS.split()) - _ENGLISH
# A character of Chinese says about as much as a word of six letters.
_LEAST_HAN = 0.15


def language_of(text: str) -> Language | None:
    """The language of a short text, None for any other than these two, and for none."""
    letters = len(_LETTER.findall(text))
    if not letters:
        return None
    han, latin = len(_HAN.findall(text)), len(_LATIN.findall(text))
    if han + latin < letters:
        return None
    if han:
        return "zh" if han >= _LEAST_HAN * letters else None
    return "en" if _is_english(text) else None


def _is_english(text: str) -> bool:
    words = _WORD.findall(text.casefold())
    english = sum(word in _ENGLISH for word in words)
    return english > sum(word in _FOREIGN for word in words)
