"""A Lambda runtime loop whose replies stream (docs/decisions/0002-own-runtime-loop.md).

wrapper -> __main__ -> loop ----> application   the function's own module: start, stream, flush, close
                        |-------> snapstart     hooks around the snapshot
                        |-------> relay         one Reply into one chunked POST
                        '-------> runtime_api   the calls  ->  wire   HTTP/1.1 on one kept connection
"""
