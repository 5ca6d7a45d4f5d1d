"""For how much: requests, tokens, concurrent requests and money, of a key, a tenant, a model or an address.

    admit ──▶ reserve ──▶ charge, for each attempt ──▶ close
    1 request  tokens,     what was really used        gives back what was reserved and not used
    1 place    money

`limiter` is what the pipeline asks. Below it, pure: `windows` and `quota` count, `sheet` says what to ask of a counter
in the fleet table and reads its replies, `bucket` counts addresses, `forecast` says what a request will take, `headers`
and `levels` say how much is left. `account` and `table` talk to the table. docs/limits.md tells what is exact.
"""
