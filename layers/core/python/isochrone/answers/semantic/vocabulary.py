"""Tables of words, English and Chinese: little words, kinds of question, negations, opposites, units, number words.

Written for this project by hand. Chinese is matched by the longest phrase first, so no word segmenter is needed.
"""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_IRREGULAR = """
        pay paid | buy bought | sell sold | send sent | win won winning | lose lost | build built | write wrote
        written | find found | get got gotten getting | make made | take took taken | give gave given | go went gone
        | come came | know knew known | see saw seen | tell told | say said | think thought | bring brought
        | teach taught | catch caught | feel felt | keep kept | leave left | mean meant | meet met | sleep
        slept | spend spent | begin began begun beginning | break broke broken | choose chose chosen | drink drank
        drunk | drive drove driven | eat ate eaten | fall fell fallen | fly flew flown | forget forgot
        forgotten forgetting | freeze froze frozen | grow grew grown | hide hid hidden | ride rode ridden | rise rose
        risen | run ran running | sing sang sung | speak spoke spoken | steal stole stolen | swim swam swum swimming
        | wear wore worn | die died dying dead death | lie lying | child children | man men | woman women | foot
        feet | tooth teeth | mouse mice | person people | stop stopped stopping | plan planned planning
        | sit sat sitting | cut cutting | put putting | shop shopped shopping | drop dropped dropping
"""
# Forms that do not begin like the word they are forms of.
IRREGULAR: dict[str, str] = {
    form: forms.split()[0] for forms in re.split(r"\|", _IRREGULAR) for form in forms.split()[1:]
}

LITTLE_ENGLISH = _words(
    """
    a an the this that these those some any of in on at for with as is are was were be been being am do does did
    doing done have has had having will would shall may might must can could should get got i me my mine we us our
    you your he him his she her it its they them their one ones there here and or but so if then else just only also
    too very really please tell explain describe say give show help need want like know let lets hi hello hey thanks
    thank way ways method methods process step steps best good right possible possibly okay ok allowed able make
    makes made go going take thing things what which who whom whose when where why how much many often long far old
    way about up out off someone somebody something anyone anything people person use using used actually exactly
    currently now again ever cause causes reason reasons into to from by than
    """
)

LITTLE_CHINESE = _words(
    """
    的 了 吗 呢 吧 啊 呀 哦 嘛 么 着 过 地 得 是 有 在 我 你 您 他 她 它 我们 你们 他们 自己 这
    那 这个 那个 这些 那些 个 请 请问 请教 问一下 一下 帮我 告诉我 给我 想 我想 想要 要 需要 应该 该 能
    能够 可以 可 会 才能 才 就 都 也 还 很 比较 一般 现在 目前 到底 究竟 怎么 怎样 如何 怎么样 怎么办
    怎么弄 咋 什么 啥 什么样 哪 哪个 哪些 哪里 哪儿 哪款 多少 几 谁 为什么 为啥 为何 怎么会 什么时候 何时
    多久 多长时间 多长 多大 是不是 能不能 可不可以 会不会 要不要 有没有 好不好 是否 能否 可否 吗 方法 办法
    方式 步骤 操作 进行 用 来 去 上 里 中 一个 一种 种 些 位 做 弄 让 使 使用 呗 您好 你好 谢谢 知道
    说 把 被 将 给 对 从 到 和 与 跟 或 或者 还是 之 所 以 而 其 于
    """
)

# Kinds of question that cannot have one answer. "What" and "which" ask for anything, so they are no kind.
KINDS_ENGLISH: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "amount",
        ("how much", "how many", "what amount", "what number of", "the number of", "cost", "costs", "price", "count"),
    ),
    ("duration", ("how long", "how many minutes", "how many hours", "how many days", "how many years")),
    ("frequency", ("how often", "how frequently")),
    ("time", ("when", "what time", "at what time", "what year", "in what year", "what date")),
    ("place", ("where",)),
    ("person", ("who", "whom", "whose", "by whom")),
    ("reason", ("why", "how come", "what causes", "what caused", "what makes", "reason", "reasons", "cause", "causes")),
    ("manner", ("how", "way", "ways", "steps")),
)
KINDS_CHINESE: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "reason",
        (
            "为什么",
            "为啥",
            "为何",
            "怎么会",
            "怎么没",
            "怎么不",
            "怎么还没",
            "什么原因",
            "是什么引起",
            "怎么引起",
            "原因",
            "什么导致",
        ),
    ),
    ("duration", ("多久", "多长时间", "几天", "几分钟", "几小时", "几年", "多少天", "多少分钟", "有效期", "期限")),
    ("time", ("什么时候", "何时", "几点", "几号", "哪天", "哪年", "哪一年", "哪一天", "几月", "什么时间")),
    ("place", ("哪里", "哪儿", "在哪", "什么地方", "何处")),
    ("person", ("谁", "哪位", "什么人")),
    ("amount", ("多少", "几个", "几次", "多大", "多高", "多重", "多快", "多远", "几岁", "多贵")),
    ("manner", ("怎么办", "怎么", "怎样", "如何", "咋", "方法", "办法", "步骤")),
)

NEGATIONS_ENGLISH = _words(
    """
    not no never without cannot none nobody nothing neither nor nowhere hardly except
    fail fails failed failing failure error unable declined refused
    """
)
FAILURES_CHINESE = ("失败", "报错", "错误", "异常", "故障", "无法")
UNDOING = (
    "cancel", "undo", "stop", "quit", "disabl", "deactivat", "unsubscrib", "give up", "turn off", "switch off",
    "shut off", "取消", "关闭", "关掉", "停止", "停用", "解除", "撤销", "退订", "戒",
)  # fmt: skip
NEGATIONS_CHINESE = "不没无未别勿莫非"
# A negation here asks, or is part of a word, and denies nothing.
NOT_NEGATIONS_CHINESE: tuple[str, ...] = (
    "差不多", "不同", "不过", "不仅", "不但", "不错", "不论", "不管", "对不起", "不好意思", "不久", "不断", "了没有",
    "没有吗", "非常", "非洲", "除非", "无线", "无论", "未来", "特别", "区别", "级别", "性别", "类别", "分别", "别人",
    "告别", "识别", "个别", "别墅", "别的", "莫斯科", "无人机", "有没有", "了没",
)  # fmt: skip

OPPOSITES_ENGLISH = """
increase raise grow gain rise up higher high maximum max most|decrease reduce lower drop lose fall down low minimum min
increase gain maximum most|least less minimum
open|close closed shut
cheap cheapest cheaper inexpensive|expensive priciest costly dearest
before|after
buy purchase|sell
enable activate on|disable deactivate off
add include|remove delete exclude subtract
import upload|export download
send|receive
lock|unlock
block|unblock
install|uninstall
connect|disconnect
start begin|stop end finish quit
win|lose
borrow|lend
deposit|withdraw
push|pull
arrive arrival|depart leave departure
enter login|exit logout
early earlier earliest|late later latest
first|last final
big bigger biggest large larger largest|small smaller smallest tiny
long longer longest|short shorter shortest
tall taller tallest|short shorter shortest
fast faster fastest quick quicker quickest|slow slower slowest
hot hotter hottest warm|cold colder coldest cool
old older oldest|new newer newest young younger youngest
good better best|bad worse worst
strong stronger strongest|weak weaker weakest
hard harder hardest difficult|easy easier easiest simple simplest
heavy heavier heaviest|light lighter lightest
near nearest closest|far farthest furthest
rich|poor
safe|dangerous unsafe
healthy|unhealthy
benefit benefits advantage advantages pros|risk risks disadvantage disadvantages cons drawback drawbacks side
allow permit|forbid ban prohibit
accept approve|reject decline refuse deny
love like|hate dislike
male man boy guy boyfriend|female woman girl girlfriend
boys guys him|girls her
husband father son brother|wife mother daughter sister
ascending|descending
inside indoor indoors|outside outdoor outdoors
left|right
north northern|south southern
east eastern|west western
above over|below under
more|less fewer
always|never
positive|negative
public|private
true|false
front|back
freeze frozen freezing|boil boiling thaw
dead death die|alive life live
am morning|pm evening
encode encrypt compress zip|decode decrypt decompress unzip extract
employer|employee
landlord|tenant
teacher|student
parent parents|child children kid kids
prevent|cure treat
symptom symptoms sign signs|cause causes treatment cure
help helpful|cause causes
together|instead apart
common|difference differences
set|turn cancel
normal average|maximum minimum highest lowest
input|output
import|export
rise|fall
success succeed|fail failure
friend|enemy
question|answer
marry|divorce
hire|fire
free|paid premium
temporary temporarily|permanent permanently
domestic|international
vegetarian|meat
legal|illegal
possible|impossible
same similar|different difference
all every each|some any few several
most|few some
follow|unfollow
mute|unmute
may can could|must
upgrade|downgrade
"""

OPPOSITES_CHINESE = """
增加 提高 增长 上涨 涨 升 提升 调高 调大 增|减少 降低 下降 下跌 跌 降 调低 调小 减
打开 开启 开通 开|关闭 关掉 关
便宜|贵 昂贵
之前 以前 前|之后 以后 后
买 购买|卖 出售
添加 加|删除 移除 去掉 减
导入 上传|导出 下载
发送 寄|接收 收
绑定|解绑 取消绑定
冻结|解冻
安装|卸载
连接|断开
开始|结束 停止 截止
赢|输
借|还
存|取
到达|出发 离开
登录 登陆|退出 注销
注册|注销
早 早上 上午|晚 晚上 下午
最早 第一|最晚 最后
大|小
长|短
高|低 矮
快|慢
热|冷
新|旧 老
好|坏 差
强|弱
难|易 容易 简单
重|轻
近|远
富|穷
安全|危险
好处 优点 利|坏处 缺点 副作用 弊
允许|禁止
接受 同意|拒绝
喜欢 爱|讨厌 恨
男 男人 男生 老公 丈夫 爸爸 父亲 儿子 哥哥|女 女人 女生 老婆 妻子 妈妈 母亲 女儿 姐姐
升序|降序
里面 内|外面 外
左|右
北|南
东|西
以上 以外|以下 以内
多|少
公开|私密
真|假
白天|晚上 夜里
生|死 熟
胖 增肥|瘦 减肥
加密 压缩|解密 解压
房东|租客 房客
老师|学生
家长|孩子
预防|治疗
症状|原因 病因 治疗
输入|输出
成功|失败
结婚|离婚
临时 暂时|永久
国内|国外
今天 今日|明天 昨天 后天 前天
明天|昨天 后天 今天
今年|明年 去年
上|下
进|出
入|出
正|反 负
合法|违法
公司 单位|个人
前面|后面
提前|延期 推迟 逾期
设置 设|关闭 取消
正常|最高 最低
免费|收费 付费
初期 早期|后期 晚期 末期
阳|阴
"""

# What comes behind the name of a product and makes it another one.
VARIANTS = _words("pro max plus mini ultra lite")

PERSONS = _words("i me my we us our you your he him his she her they them their who whom 我 你 您 他 她 它 谁")

# Words that mean something else with a capital.
CAPITALS = _words(
    "polish turkey china march may august apple amazon target shell orange mercury reading nice bath job mobile"
)

UNITS: dict[str, str] = {
    form: unit
    for unit, forms in {
        "kg": "kg kgs kilo kilos kilogram kilograms 公斤 千克",
        "jin": "斤",
        "lb": "lb lbs pound pounds 磅",
        "g": "g gram grams 克",
        "km": "km kilometer kilometers kilometre kilometres 公里 千米",
        "mile": "mile miles mi 英里",
        "m": "m meter meters metre metres 米",
        "cm": "cm centimeter centimeters 厘米 公分",
        "foot": "ft foot feet 英尺",
        "inch": "inch inches 英寸 寸",
        "l": "l liter liters litre litres 升",
        "ml": "ml 毫升",
        "s": "s sec second seconds 秒 秒钟",
        "min": "min mins minute minutes 分钟",
        "hour": "h hr hrs hour hours 小时 个小时 钟头",
        "day": "day days 天 日",
        "week": "week weeks 周 星期 个星期 礼拜",
        "month": "month months 个月 月",
        "year": "year years yr yrs 年",
        "age": "岁 周岁",
        "degree": "degree degrees ° 度 ℃",
        "$": "$ dollar dollars usd bucks 美元 美金",
        "€": "€ euro euros eur 欧元",
        "£": "£ gbp 英镑",
        "¥": "¥ yuan rmb cny 元 块 块钱 元钱 人民币",
        "%": "% percent 个百分点",
        "kb": "kb",
        "mb": "mb",
        "gb": "gb g内存",
        "tb": "tb",
        "am": "am a.m",
        "pm": "pm p.m",
        "watt": "w watt watts 瓦",
        "kwh": "kwh 度电",
    }.items()
    for form in forms.split()
}

NUMBERS_ENGLISH: dict[str, float] = {
    word: float(value)
    for value, words in {
        "0": "zero",
        "0.25": "quarter",
        "0.5": "half",
        "1": "one first",
        "2": "two second twice double",
        "3": "three third thrice triple",
        "4": "four fourth",
        "5": "five fifth",
        "6": "six sixth",
        "7": "seven seventh",
        "8": "eight eighth",
        "9": "nine ninth",
        "10": "ten tenth",
        "11": "eleven",
        "12": "twelve dozen",
        "13": "thirteen",
        "14": "fourteen",
        "15": "fifteen",
        "16": "sixteen",
        "17": "seventeen",
        "18": "eighteen",
        "19": "nineteen",
        "20": "twenty",
        "30": "thirty",
        "40": "forty",
        "50": "fifty",
        "60": "sixty",
        "70": "seventy",
        "80": "eighty",
        "90": "ninety",
        "100": "hundred",
        "1000": "thousand",
        "1000000": "million",
        "1000000000": "billion",
    }.items()
    for word in words.split()
}

CALENDAR: dict[str, str] = {
    form: name
    for name, forms in {
        "january": "january jan 一月 1月",
        "february": "february feb 二月 2月",
        "march": "三月 3月",
        "april": "april apr 四月 4月",
        "may": "五月 5月",
        "june": "june jun 六月 6月",
        "july": "july jul 七月 7月",
        "august": "august aug 八月 8月",
        "september": "september sept sep 九月 9月",
        "october": "october oct 十月 10月",
        "november": "november nov 十一月 11月",
        "december": "december dec 十二月 12月",
        "monday": "monday mondays 周一 星期一 礼拜一",
        "tuesday": "tuesday tuesdays 周二 星期二 礼拜二",
        "wednesday": "wednesday wednesdays 周三 星期三 礼拜三",
        "thursday": "thursday thursdays 周四 星期四 礼拜四",
        "friday": "friday fridays 周五 星期五 礼拜五",
        "saturday": "saturday saturdays 周六 星期六 礼拜六",
        "sunday": "sunday sundays 周日 周天 星期日 星期天 礼拜天",
        "today": "today tonight 今天 今日 今晚 今早",
        "tomorrow": "tomorrow 明天 明日 明晚 明早",
        "yesterday": "yesterday 昨天 昨日 昨晚",
        "this year": "今年",
        "next year": "明年",
        "last year": "去年",
        "the day after tomorrow": "后天",
        "the day before yesterday": "前天",
        "spring": "spring 春天 春季",
        "summer": "summer 夏天 夏季",
        "autumn": "autumn 秋天 秋季",
        "winter": "winter 冬天 冬季",
    }.items()
    for form in forms.split()
}

QUALITIES: dict[str, str] = {
    form: quality
    for quality, forms in {
        "price": "cheap cheaper cheapest expensive priciest 便宜 贵",
        "speed": "fast faster fastest quick quicker quickest slow slower slowest",
        "size": "big bigger biggest large larger largest small smaller smallest 最大 更大 最小",
        "age": "old older oldest young younger youngest new newest 最老 最新",
        "height": "tall taller tallest high higher highest",
        "weight": "heavy heavier heaviest 最重 更重 最轻",
        "distance": "near nearest closest far farthest furthest 最近 最远 更近 更远",
        "safety": "safe safer safest 最安全 更安全",
        "ease": "easy easier easiest simple simplest hard harder hardest 最简单 最难 更难",
        "strength": "strong stronger strongest 最强 更强",
        "heat": "hot hotter hottest cold coldest 最热 最冷",
        "norm": "normal average 正常 平均",
        "merit": "better worse",
    }.items()
    for form in forms.split()
}

LANGUAGES: dict[str, str] = {
    form: name
    for name, forms in {
        "english": "english 英语 英文",
        "chinese": "chinese mandarin 中文 汉语 普通话",
        "cantonese": "cantonese 粤语 广东话",
        "french": "french 法语 法文",
        "german": "german 德语 德文",
        "spanish": "spanish 西班牙语",
        "italian": "italian 意大利语",
        "portuguese": "portuguese 葡萄牙语",
        "russian": "russian 俄语 俄文",
        "japanese": "japanese 日语 日文",
        "korean": "korean 韩语 韩文",
        "arabic": "arabic 阿拉伯语",
        "hindi": "hindi 印地语",
        "latin": "latin 拉丁语",
        "dutch": "dutch 荷兰语",
        "turkish": "turkish 土耳其语",
    }.items()
    for form in forms.split()
}
