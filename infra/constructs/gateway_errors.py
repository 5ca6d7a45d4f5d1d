"""What API Gateway answers by itself, before or instead of the edge function, in the shape that OpenAI clients read."""

from __future__ import annotations

import json
from typing import NamedTuple

from aws_cdk import aws_apigateway as apigateway
from aws_cdk.aws_apigateway import ResponseType

# API Gateway puts its own words here, quoted.
ITS_WORDS = "$context.error.messageString"


class Answer(NamedTuple):
    """`status` None: API Gateway's own. `message` None: its own words. `wait`: seconds after which to come back."""

    type: str
    code: str
    status: int | None = None
    message: str | None = None
    wait: int | None = None


def answer_errors(api: apigateway.RestApi, *, requests_per_address: int) -> None:
    """Give every error of API Gateway and of the web ACL on `api` the shape of docs/http.md."""
    too_many = f"This address sent more than {requests_per_address} requests in 5 minutes. Wait, then send fewer."
    answers = {
        "Default4xx": (ResponseType.DEFAULT_4_XX, Answer("invalid_request_error", "refused_by_api_gateway")),
        "Default5xx": (ResponseType.DEFAULT_5_XX, Answer("server_error", "api_gateway_failed")),
        "TooLarge": (ResponseType.REQUEST_TOO_LARGE, Answer("invalid_request_error", "body_too_large", 413)),
        "Throttled": (ResponseType.THROTTLED, Answer("rate_limit_error", "edge_throttled", 429, wait=1)),
        "OverLimit": (
            ResponseType.WAF_FILTERED,
            Answer("rate_limit_error", "address_over_limit", 429, message=too_many, wait=60),
        ),
    }
    for id, (kind, answer) in answers.items():
        api.add_gateway_response(
            id,
            type=kind,
            status_code=str(answer.status) if answer.status else None,
            response_headers={"retry-after": f"'{answer.wait}'"} if answer.wait else None,
            templates={"application/json": _body(answer)},
        )


def _body(answer: Answer) -> str:
    message = json.dumps(answer.message) if answer.message else ITS_WORDS
    return f'{{"error":{{"message":{message},"type":"{answer.type}","code":"{answer.code}","param":null}}}}'
