"""What API Gateway answers by itself, before or instead of the edge function, in the shape that OpenAI clients read."""

from __future__ import annotations

from typing import NamedTuple

from aws_cdk import aws_apigateway as apigateway
from aws_cdk.aws_apigateway import ResponseType

# API Gateway puts its own words here, quoted.
ITS_WORDS = "$context.error.messageString"


class Answer(NamedTuple):
    """`status` None: API Gateway's own. `wait`: seconds after which to come back."""

    type: str
    code: str
    status: int | None = None
    wait: int | None = None


def answer_errors(api: apigateway.RestApi) -> None:
    """Give every error of API Gateway on `api` the shape of docs/http.md. Most rules of the web ACL have an answer of
    their own, which goes before these."""
    answers = {
        "Default4xx": (ResponseType.DEFAULT_4_XX, Answer("invalid_request_error", "refused_by_api_gateway")),
        "Default5xx": (ResponseType.DEFAULT_5_XX, Answer("server_error", "api_gateway_failed")),
        "TooLarge": (ResponseType.REQUEST_TOO_LARGE, Answer("invalid_request_error", "body_too_large", 413)),
        "Throttled": (ResponseType.THROTTLED, Answer("rate_limit_error", "edge_throttled", 429, wait=1)),
        "Filtered": (ResponseType.WAF_FILTERED, Answer("permission_error", "refused_by_firewall", 403)),
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
    return f'{{"error":{{"message":{ITS_WORDS},"type":"{answer.type}","code":"{answer.code}","param":null}}}}'
