"""The guarded client over real sockets: whoever names an address, or answers for it, gets no further than allowed."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from isochrone.outbound.client import GuardedClient, NotFetched
from isochrone.outbound.urls import NotPublic, PublicUrl

SECONDS = 5.0
Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Names(AbstractResolver):
    """Gives each question the next of these answers, the last one for ever."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in answer
        ]

    async def close(self) -> None:
        """Nothing to close."""


class Server:
    """Answers every request on 127.0.0.1 with the same bytes; `heads` are the requests."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.port = 0

    def url(self, host: str = "127.0.0.1", scheme: str = "http") -> PublicUrl:
        text = f"{scheme}://{host}:{self.port}/keys"
        return PublicUrl(text, own=text)


@asynccontextmanager
async def serving(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server, open_ones = Server(), set[asyncio.StreamWriter]()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_ones.add(writer)
        try:
            server.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
            await answer(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listener = await asyncio.start_server(converse, "127.0.0.1", 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for writer in open_ones:
            writer.transport.abort()
        await asyncio.sleep(0)


def saying(body: bytes, status: str = "200 OK", *headers: str) -> Answer:
    async def answer(writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
        writer.write("\r\n".join(lines).encode() + body)
        await writer.drain()

    return answer


async def fetch(
    url: PublicUrl, *, names: Names | None = None, seconds: float = SECONDS, max_bytes: int = 1000
) -> bytes:
    return (await GuardedClient(names).fetch(url, max_bytes=max_bytes, seconds=seconds)).body


async def test_reply_and_how_long_it_may_be_kept_come_back() -> None:
    async with serving(saying(b"{}", "200 OK", "Cache-Control: public, max-age=600")) as server:
        assert await GuardedClient().fetch(server.url(), max_bytes=2, seconds=SECONDS) == (b"{}", 600)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1", "100.64.0.1"]
)
async def test_public_name_that_leads_inside_is_not_connected_to(address: str) -> None:
    with pytest.raises(NotPublic):
        await fetch(PublicUrl("https://login.example.com/"), names=Names([address]))


async def test_one_inner_address_among_public_ones_refuses_all() -> None:
    with pytest.raises(NotPublic):
        await fetch(PublicUrl("https://login.example.com/"), names=Names(["8.8.8.8", "10.0.0.1"]))


async def test_name_without_an_address_is_not_fetched() -> None:
    with pytest.raises(NotFetched):
        await fetch(PublicUrl("https://login.example.com/"), names=Names([]))


async def test_name_that_changes_its_address_is_asked_once_and_connected_to_as_checked() -> None:
    names = Names(["127.0.0.1"], ["169.254.169.254"])
    async with serving(saying(b"yes")) as server:
        assert await fetch(server.url("sso.localhost"), names=names) == b"yes"
        assert names.asked == 1
        assert len(server.heads) == 1


async def test_next_request_is_checked_anew() -> None:
    client = GuardedClient(Names(["127.0.0.1"], ["169.254.169.254"]))
    async with serving(saying(b"yes")) as server:
        await client.fetch(server.url("sso.localhost"), max_bytes=10, seconds=SECONDS)
        with pytest.raises(NotPublic):
            await client.fetch(server.url("sso.localhost"), max_bytes=10, seconds=SECONDS)
        assert len(server.heads) == 1


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
async def test_redirect_is_not_followed(status: str) -> None:
    async with serving(saying(b"there")) as inside:
        moved = saying(b"", status, f"Location: http://127.0.0.1:{inside.port}/latest/meta-data/")
        async with serving(moved) as server:
            with pytest.raises(NotFetched, match="answered 30"):
                await fetch(server.url())
            assert await GuardedClient().post(server.url(), b"{}", headers={}, seconds=SECONDS) == int(status[:3])
        assert inside.heads == []


async def test_huge_reply_is_left_at_its_bound() -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while True:
            writer.write(b"a" * 65536)
            await writer.drain()

    async with serving(endless) as server:
        with pytest.raises(NotFetched, match="more than 1000 bytes"):
            await fetch(server.url())


async def test_reply_that_drips_is_left_at_the_end_of_the_time_for_all_of_it() -> None:
    async def dripping(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            writer.write(b"a")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with serving(dripping) as server:
        with pytest.raises(NotFetched, match="no whole answer in time"):
            await fetch(server.url(), seconds=0.2)


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"])
async def test_whatever_is_no_whole_http_answer_is_not_fetched(answer: bytes) -> None:
    async def odd(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    async with serving(odd) as server:
        with pytest.raises(NotFetched):
            await fetch(server.url())


async def test_compressed_reply_is_left_as_it_is() -> None:
    """A bomb stays as small as it came."""
    async with serving(saying(b"\x1f\x8b", "200 OK", "Content-Encoding: gzip")) as server:
        assert await fetch(server.url()) == b"\x1f\x8b"


async def test_error_does_not_tell_what_was_replied() -> None:
    async with serving(saying(b"AKIA-secret", "500 AKIA-secret")) as server:
        with pytest.raises(NotFetched) as caught:
            await fetch(server.url())
        assert "AKIA" not in str(caught.value)


async def test_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(saying(b"proxied")) as proxy, serving(saying(b"direct")) as server:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        assert await fetch(server.url()) == b"direct"
        assert proxy.heads == []


async def test_posted_body_arrives_and_only_its_status_comes_back() -> None:
    async with serving(saying(b"echo", "202 Accepted")) as server:
        assert await GuardedClient().post(server.url(), b"{}", headers={"X-A": "b"}, seconds=SECONDS) == 202
        assert server.heads[0].startswith("POST /keys HTTP/1.1\r\n")
        assert "X-A: b\r\n" in server.heads[0]


# -- TLS ---------------------------------------------------------------------------------------------------------------


def certified(name: str, folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """What a server called `name` shows, and what believes only that."""
    key, subject, now = ec.generate_private_key(ec.SECP256R1()), x509.Name([]), datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "server.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    shown, believed = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=pem)
    shown.load_cert_chain(pem)
    return shown, believed


async def test_checked_address_is_asked_under_the_name_that_was_checked(tmp_path: Path) -> None:
    shown, believed = certified("sso.localhost", tmp_path)
    indicated: list[str | None] = []
    shown.sni_callback = lambda _, name, __: indicated.append(name)
    async with serving(saying(b"yes"), shown) as server:
        client = GuardedClient(Names(["127.0.0.1"]), believed)
        assert (await client.fetch(server.url("sso.localhost", "https"), max_bytes=10, seconds=SECONDS)).body == b"yes"
        assert indicated == ["sso.localhost"]
        assert f"Host: sso.localhost:{server.port}\r\n" in server.heads[0]


async def test_certificate_of_another_name_is_not_believed(tmp_path: Path) -> None:
    shown, believed = certified("other.localhost", tmp_path)
    async with serving(saying(b"yes"), shown) as server:
        with pytest.raises(NotFetched):
            client = GuardedClient(Names(["127.0.0.1"]), believed)
            await client.fetch(server.url("sso.localhost", "https"), max_bytes=10, seconds=SECONDS)
        assert server.heads == []
