"""Names of people, by what stands beside them: titles, greetings, labels, and in Chinese the surname.

Without a model of language most names cannot be told from other words; these are the ones that can. Precision is wanted
more than recall, and docs/privacy.md says how much is missed.
"""

from __future__ import annotations

from isochrone.patterns import compile_pattern
from isochrone.pii.found import Detector

# The hundred that most people have (Ministry of Public Security, 2020 report), and double ones.
_SURNAMES = (
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林罗高郑梁谢宋唐许韩邓冯曹彭曾肖田董潘袁蔡蒋余于杜叶程魏苏吕丁任卢姚沈钟姜崔谭陆范汪廖石"
    "金韦贾夏付方邹熊白孟秦邱侯江尹薛闫雷龙黎史陶贺毛段郝顾龚邵覃武钱戴严莫孔向常汤康易乔赖文"
)
_SURNAME = f"(?:欧阳|司马|上官|诸葛|夏侯|皇甫|尉迟|公孙|慕容|令狐|东方|[{_SURNAMES}])"
_LABEL = "(?:姓名|名字|联系人|收件人|收货人|寄件人|患者|客户|员工|申请人|投保人|持卡人|当事人|签名)"
_GIVEN = "[一-龥]"
_WORD = r"[A-Z][a-z]+(?:['-][A-Z][a-z]+)?"
_FULL_NAME = rf"{_WORD}(?: [A-Z]\.)?(?: {_WORD}){{0,2}}"

_SHAPES = (
    rf"\b(?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof|Professor|Sir|Madam)\.? ({_FULL_NAME})",
    rf"\b(?:[Mm]y|[Hh]is|[Hh]er|[Tt]heir) (?:full )?name is ({_FULL_NAME})",
    rf"\b(?:I am|I'm|[Tt]his is|[Ss]igned,?|[Rr]egards,?|[Ss]incerely,?)\s+({_WORD} {_WORD})\b",
    rf"\bDear ({_WORD}(?: {_WORD})?)[,:]",
    rf"(?i:\bname)\s?[:=]\s?[\"']?({_WORD}(?: {_WORD}){{1,2}})\b",
    rf"{_LABEL}(?:[:：]|是|为|叫)?\s?({_SURNAME}{_GIVEN}{{1,2}})(?:[^一-龥]|$|的|先生|女士)",
    rf"(?:我叫|我是|他叫|她叫|名叫|本人)({_SURNAME}{_GIVEN}{{1,2}})(?:[^一-龥]|$)",
    rf"({_SURNAME}{_GIVEN}{{0,2}})(?:先生|女士|小姐|老师|同学|教授|医生|大夫)",
)
_NOT_NAMES = frozenset(
    ("sir", "madam", "team", "all", "customer", "user", "support", "happy", "sorry", "looking", "trying", "working"),
) | {"hiring", "friend", "colleague", "colleagues", "everyone", "community", "manager"}


def _is_name(text: str, start: int, end: int) -> bool:
    return text[start:end].split(" ", maxsplit=1)[0].casefold() not in _NOT_NAMES


def detectors() -> list[Detector]:
    """Those of kind `name`."""
    return [Detector("NAME", compile_pattern("(?-i)" + shape), _is_name) for shape in _SHAPES]
