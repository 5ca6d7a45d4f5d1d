"""What the stores on DynamoDB say when the endpoint is dead, hangs, throttles or talks nonsense."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import import_module
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from msgspec.structs import replace

from isochrone.answers.library import Library
from isochrone.answers.memory_tier import MemoryTier
from isochrone.ledger.book import Book
from isochrone.ledger.entry import Entry
from isochrone.stores.dynamodb.answers import DynamoAnswerStore
from isochrone.stores.dynamodb.client import DynamoClient, Timeouts, connect
from isochrone.stores.dynamodb.credentials import ContainerCredentials, Credentials, CredentialSource
from isochrone.stores.dynamodb.errors import InvalidCall, StoreRefused
from isochrone.stores.dynamodb.fleet import DynamoFleetStore
from isochrone.stores.dynamodb.ledger import DynamoLedgerStore
from isochrone.stores.protocols import StoreBusy, StoreUnavailable
from tests.inquiries import inquiry

A_ROW = Entry(
    request_id="r",
    tenant="t",
    model="m",
    backend="b",
    attempt=1,
    outcome="ok",
    input_tokens=1,
    output_tokens=1,
    cost=0.0,
    started_at=1.0,
    first_token_ms=None,
    total_ms=1.0,
)
ENTRY = {"tenant": "t", "request_id": "r", "attempt": 1, "started_at": 1.0}
METHODS: dict[str, Callable[[DynamoClient], Awaitable[object]]] = {
    "answers.get": lambda client: DynamoAnswerStore(client, "a").get("f", now=0),
    "answers.put": lambda client: DynamoAnswerStore(client, "a").put("f", b"", tenant="t", expires=1),
    "answers.put with a fence": lambda client: DynamoAnswerStore(client, "a").put(
        "f", b"", tenant="t", expires=1, fence=1
    ),
    "answers.delete": lambda client: DynamoAnswerStore(client, "a").delete("f"),
    "fleet.read": lambda client: DynamoFleetStore(client, "f").read("n", now=0),
    "fleet.write": lambda client: DynamoFleetStore(client, "f").write("n", {}, version=0, expires=1),
    "fleet.add": lambda client: DynamoFleetStore(client, "f").add("n", {"a": 1}, expires=1),
    "fleet.take": lambda client: DynamoFleetStore(client, "f").take("n", {"a": 1}, most={"a": 9}, expires=1),
    "ledger.append": lambda client: DynamoLedgerStore(client, "l").append([ENTRY]),
    "ledger.recent": lambda client: DynamoLedgerStore(client, "l").recent("t"),
    "ledger.all": lambda client: DynamoLedgerStore(client, "l").all(),
}
each_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


class Keys:
    """Credentials that count how often they were dropped."""

    def __init__(self, *, renewable: bool) -> None:
        self.forgotten = 0
        self._renewable = renewable

    async def get(self, now: float) -> Credentials:
        return Credentials(f"AK{self.forgotten}", "secret", "token")

    def forget(self) -> bool:
        self.forgotten += 1
        return self._renewable


def client_of(url: str, *, total: float = 20, keys: CredentialSource | None = None) -> DynamoClient:
    return DynamoClient(
        aiohttp.ClientSession(),
        keys or Keys(renewable=False),
        region="eu-west-1",
        endpoint_url=url,
        timeouts=Timeouts(connect=10, total=total),
        chance=lambda: 0.0,
    )


@pytest.fixture
async def client(endpoint: Any) -> AsyncIterator[DynamoClient]:
    async with client_of(endpoint.url) as client:
        yield client


@each_method
async def test_dead_endpoint_makes_the_store_unavailable(method: Callable[[DynamoClient], Awaitable[object]]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        async with client_of(f"http://127.0.0.1:{closed.getsockname()[1]}") as client:
            with pytest.raises(StoreUnavailable, match="DynamoDB"):
                await method(client)


@each_method
async def test_hanging_endpoint_is_given_up_after_the_total_time_without_a_second_try(
    endpoint: Any, method: Callable[[DynamoClient], Awaitable[object]]
) -> None:
    endpoint.script = [endpoint.hang]
    async with client_of(endpoint.url, total=0.3) as client:
        with pytest.raises(StoreUnavailable, match=r"no answer within 0\.3 s"):
            await method(client)
    assert len(endpoint.requests) <= 1


async def test_hanging_credentials_are_given_up_after_the_total_time_of_a_call(endpoint: Any) -> None:
    endpoint.script = [endpoint.hang]
    async with aiohttp.ClientSession() as session:
        keys = ContainerCredentials(session, endpoint.url)
        async with client_of("http://127.0.0.1:1", total=0.1, keys=keys) as client:
            with pytest.raises(StoreUnavailable, match=r"no answer within 0\.1 s"):
                await DynamoAnswerStore(client, "a").get("f", now=0)


@each_method
async def test_throttling_endpoint_is_asked_twice_and_then_left_alone(
    endpoint: Any, client: DynamoClient, method: Callable[[DynamoClient], Awaitable[object]]
) -> None:
    endpoint.script = [endpoint.fault("ProvisionedThroughputExceededException")]
    with pytest.raises(StoreUnavailable, match="ProvisionedThroughputExceededException: as scripted"):
        await method(client)
    assert len(endpoint.requests) == 2


@each_method
async def test_missing_table_is_refused_at_once_with_its_name_for_the_operator(
    endpoint: Any, client: DynamoClient, method: Callable[[DynamoClient], Awaitable[object]]
) -> None:
    endpoint.script = [endpoint.fault("ResourceNotFoundException")]
    with pytest.raises(StoreRefused) as refused:
        await method(client)
    assert refused.value.code == "ResourceNotFoundException"
    assert len(endpoint.requests) == 1


@each_method
async def test_answer_that_is_not_dynamodbs_makes_the_store_unavailable(
    endpoint: Any, client: DynamoClient, method: Callable[[DynamoClient], Awaitable[object]]
) -> None:
    endpoint.script = [endpoint.replying(200, "<html>a captive portal</html>")]
    with pytest.raises(StoreUnavailable, match="not an answer of DynamoDB"):
        await method(client)


@pytest.mark.parametrize("status", [500, 502, 503, 429])
async def test_passing_trouble_is_got_over_by_the_second_try(endpoint: Any, client: DynamoClient, status: int) -> None:
    endpoint.script = [endpoint.replying(status, "<html>busy</html>"), endpoint.replying(200, "{}")]
    assert await DynamoAnswerStore(client, "a").get("f", now=0) is None
    assert len(endpoint.requests) == 2


async def test_kept_connection_that_the_server_closed_is_got_over_by_the_second_try(
    endpoint: Any, client: DynamoClient
) -> None:
    endpoint.script = [endpoint.replying(200, "{}"), endpoint.hang_up, endpoint.replying(200, "{}")]
    answers = DynamoAnswerStore(client, "a")
    await answers.get("f", now=0)
    assert await answers.get("f", now=0) is None


@pytest.mark.parametrize("code", ["ValidationException", "SerializationException"])
async def test_request_that_makes_no_sense_is_a_mistake_and_not_an_outage(
    endpoint: Any, client: DynamoClient, code: str
) -> None:
    endpoint.script = [endpoint.fault(code)]
    with pytest.raises(InvalidCall, match=f"GetItem: {code}: as scripted"):
        await DynamoAnswerStore(client, "a").get("f", now=0)
    assert len(endpoint.requests) == 1


async def test_answers_table_of_another_shape_is_a_miss_and_never_an_error(endpoint: Any, client: DynamoClient) -> None:
    """DynamoDB calls a key that does not match the table's schema a ValidationException."""
    endpoint.script = [endpoint.fault("ValidationException")]
    library = Library(DynamoAnswerStore(client, "a"), MemoryTier(max_bytes=10_000, ttl=10), chance=lambda: 0.5)
    assert await library.look_up(inquiry(), now=0) is None


async def test_ledger_entry_that_dynamodb_finds_fault_with_is_no_outage(endpoint: Any, client: DynamoClient) -> None:
    endpoint.script = [endpoint.fault("ValidationException")]
    with pytest.raises(ValueError, match="ValidationException: as scripted"):
        await DynamoLedgerStore(client, "l").append([ENTRY])


async def test_redirect_is_not_followed(endpoint: Any, client: DynamoClient) -> None:
    async def redirect(request: web.Request) -> web.StreamResponse:
        return web.Response(status=307, headers={"location": "/elsewhere"})

    endpoint.script = [redirect]
    with pytest.raises(StoreRefused, match="307"):
        await DynamoAnswerStore(client, "a").get("f", now=0)
    assert [request.path for request in endpoint.requests] == ["/"]


async def test_expired_keys_are_renewed_and_the_call_is_made_again(endpoint: Any) -> None:
    endpoint.script = [endpoint.fault("ExpiredTokenException"), endpoint.replying(200, "{}")]
    keys = Keys(renewable=True)
    async with client_of(endpoint.url, keys=keys) as client:
        assert await DynamoAnswerStore(client, "a").get("f", now=0) is None
    used = [request.headers["authorization"].split("=")[1][:3] for request in endpoint.requests]
    assert used == ["AK0", "AK1"]


async def test_expired_keys_that_cannot_be_renewed_are_refused(endpoint: Any) -> None:
    endpoint.script = [endpoint.fault("ExpiredTokenException")]
    async with client_of(endpoint.url, keys=Keys(renewable=False)) as client:
        with pytest.raises(StoreRefused, match="ExpiredTokenException"):
            await DynamoAnswerStore(client, "a").get("f", now=0)
    assert len(endpoint.requests) == 1


async def test_write_whose_reply_was_lost_knows_its_own_work_when_tried_again(
    endpoint: Any, client: DynamoClient
) -> None:
    async def refuse_showing_the_written_item(request: web.Request) -> web.StreamResponse:
        written = json.loads(endpoint.bodies[0])["ExpressionAttributeValues"]
        item = {"writer": written[":writer"], "version": {"N": "7"}}
        return web.json_response({"__type": "x#ConditionalCheckFailedException", "Item": item}, status=400)

    endpoint.script = [endpoint.hang_up, refuse_showing_the_written_item]
    assert await DynamoFleetStore(client, "f").write("lease", {}, version=6, expires=1) == 7


async def test_ledger_that_fails_half_way_says_so_and_can_be_given_the_same_again(
    endpoint: Any, client: DynamoClient
) -> None:
    async def refuse_the_second_entry(request: web.Request) -> web.StreamResponse:
        if b'attempt":{"N":"2' in endpoint.bodies[-1] and len(endpoint.requests) <= 4:
            return web.json_response({"__type": "x#ThrottlingException"}, status=400)
        return web.Response(body=b"{}")

    endpoint.script = [refuse_the_second_entry]
    ledger = DynamoLedgerStore(client, "l")
    entries = [ENTRY | {"attempt": attempt} for attempt in (1, 2, 3)]
    with pytest.raises(StoreUnavailable):
        await ledger.append(entries)
    await ledger.append(entries)
    assert len(endpoint.requests) == 7


async def test_ledger_entry_that_dynamodb_finds_fault_with_is_lost_alone(endpoint: Any, client: DynamoClient) -> None:
    async def refuse_the_second_entry(request: web.Request) -> web.StreamResponse:
        refused = b'attempt":{"N":"2' in endpoint.bodies[-1]
        fault = {"__type": "x#ValidationException", "message": "Number overflow"}
        return web.json_response(fault if refused else {}, status=400 if refused else 200)

    endpoint.script = [refuse_the_second_entry]
    book = Book(DynamoLedgerStore(client, "l"))
    for attempt in range(1, 4):
        book.write(replace(A_ROW, attempt=attempt))
    await book.flush()
    assert (len(book), book.lost) == (0, 1)


async def test_aclose_leaves_no_connection_open(endpoint: Any) -> None:
    endpoint.script = [endpoint.replying(200, "{}")]
    client = client_of(endpoint.url)
    await asyncio.gather(*(DynamoAnswerStore(client, "a").get("f", now=0) for _ in range(5)))
    assert endpoint.open_connections > 0
    await client.aclose()
    await endpoint.until_closed()


async def test_call_that_was_given_up_leaves_no_connection_open(endpoint: Any) -> None:
    endpoint.script = [endpoint.hang]
    async with client_of(endpoint.url, total=0.2) as client:
        with pytest.raises(StoreUnavailable):
            await DynamoAnswerStore(client, "a").get("f", now=0)
        await endpoint.until_closed()


async def test_connect_needs_no_keys_for_an_emulator(endpoint: Any) -> None:
    endpoint.script = [endpoint.replying(200, "{}")]
    async with connect("ap-southeast-1", endpoint_url=endpoint.url, environ={}) as client:
        await DynamoAnswerStore(client, "a").get("f", now=0)
    assert "Credential=test/" in endpoint.requests[0].headers["authorization"]
    assert "/ap-southeast-1/dynamodb/aws4_request" in endpoint.requests[0].headers["authorization"]


async def test_request_arrives_exactly_as_it_was_signed(endpoint: Any, client: DynamoClient) -> None:
    """botocore signs what arrived; its signature must be the one that came with it."""
    auth, awsrequest, keys = (import_module(f"botocore.{name}") for name in ("auth", "awsrequest", "credentials"))
    endpoint.script = [endpoint.replying(200, "{}")]
    await DynamoAnswerStore(client, "tablé").put("f", b"\x00\xff", tenant="t", expires=1)
    arrived = endpoint.requests[0]
    signed = arrived.headers["authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
    request = awsrequest.AWSRequest("POST", endpoint.url + "/", data=endpoint.bodies[0])
    for name in signed:
        request.headers[name] = arrived.headers[name]
    request.context["timestamp"] = arrived.headers["x-amz-date"]
    signer = auth.SigV4Auth(keys.Credentials("AK0", "secret"), "dynamodb", "eu-west-1")
    expected = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    assert arrived.headers["authorization"].endswith(f"Signature={expected}")
    assert {"host", "x-amz-date", "x-amz-target", "x-amz-security-token"} <= set(signed)


async def test_what_is_given_back_to_a_counter_is_never_given_back_twice(endpoint: Any, client: DynamoClient) -> None:
    endpoint.script = [endpoint.hang_up]
    with pytest.raises(StoreUnavailable):
        await DynamoFleetStore(client, "f").take("n", {"a": -3}, most={}, expires=1)
    assert len(endpoint.requests) == 1


async def test_what_was_turned_away_may_be_given_back_again(endpoint: Any, client: DynamoClient) -> None:
    endpoint.script = [endpoint.fault("ThrottlingException"), endpoint.replying(200, '{"Attributes": {}}')]
    assert (await DynamoFleetStore(client, "f").take("n", {"a": -3}, most={}, expires=1)).done
    assert len(endpoint.requests) == 2


async def test_a_throttled_call_says_that_nothing_was_done(endpoint: Any, client: DynamoClient) -> None:
    endpoint.script = [endpoint.fault("ProvisionedThroughputExceededException")]
    with pytest.raises(StoreBusy):
        await DynamoFleetStore(client, "f").take("n", {"a": 1}, most={}, expires=1)


@pytest.mark.parametrize("text", ["not json", "[]", "null"])
async def test_fleet_document_that_nobody_here_wrote_makes_the_store_unavailable(
    endpoint: Any, client: DynamoClient, text: str
) -> None:
    """Whoever asks goes on alone, as without the table."""
    item = {"document": {"S": text}, "deadline": {"N": "9"}, "version": {"N": "3"}}
    endpoint.script = [endpoint.replying(200, json.dumps({"Item": item}))]
    with pytest.raises(StoreUnavailable, match="fleet document 'n' is none that was written here"):
        await DynamoFleetStore(client, "f").read("n", now=0)


@pytest.mark.parametrize("poison", [{"n:a": {"S": "x"}}, {"n:a": {"N": "1"}, "deadline": {"S": "x"}}])
async def test_fleet_counters_that_are_no_numbers_make_the_store_unavailable(
    endpoint: Any, client: DynamoClient, poison: dict[str, Any]
) -> None:
    body = json.dumps({"__type": "x#ConditionalCheckFailedException", "Item": poison})
    endpoint.script = [endpoint.replying(400, body)]
    with pytest.raises(StoreUnavailable, match="fleet counters 'n': not all of them are numbers"):
        await DynamoFleetStore(client, "f").take("n", {"a": 1}, most={"a": 9}, expires=1)


@pytest.mark.parametrize("hours", [-1, 1])
async def test_store_knows_how_far_its_clock_is_ahead(endpoint: Any, hours: int) -> None:
    ours = time.time() - hours * 3600
    endpoint.script = [endpoint.replying(200, '{"Attributes": {}}')]
    session = aiohttp.ClientSession()
    async with DynamoClient(
        session, Keys(renewable=False), region="eu-west-1", endpoint_url=endpoint.url, clock=lambda: ours
    ) as client:
        store = DynamoFleetStore(client, "f", clock=lambda: ours)
        assert store.offset == 0.0
        await store.add("n", {"a": 1}, expires=1)
        assert store.offset == pytest.approx(hours * 3600, abs=30)
