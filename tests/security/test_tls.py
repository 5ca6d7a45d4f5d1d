"""How edges and probers speak to backends: TLS 1.2 or newer, and only to who can show a certificate that is trusted."""

from __future__ import annotations

import asyncio
import ssl
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from yarl import URL

from isochrone.routing import prober
from isochrone.upstream import attempt

SESSIONS = {"edge": attempt.open_session, "prober": prober.open_session}
OpenSession = Callable[[], aiohttp.ClientSession]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that nobody vouches for, for 127.0.0.1, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    pkcs8 = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(pkcs8 + made.public_bytes(serialization.Encoding.PEM))
    return path


def _speaking(version: ssl.TLSVersion, side: int) -> ssl.SSLContext:
    """This version and no other, with every cipher there is."""
    context = ssl.SSLContext(side)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = version
        context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


async def _can_be_spoken(version: ssl.TLSVersion, url: URL) -> bool:
    """Is there any client on this machine that this server and this version will do for?"""
    client = _speaking(version, ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    _, writer = await asyncio.open_connection(url.host, url.port, ssl=client)
    writer.close()
    return True


@asynccontextmanager
async def server_of(version: ssl.TLSVersion, certificate: Path) -> AsyncIterator[URL]:
    """The address of a server that speaks this version of TLS and no other."""
    context = _speaking(version, ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0, ssl=context)
    async with server:
        yield URL.build(scheme="https", host="127.0.0.1", port=server.sockets[0].getsockname()[1], path="/v1")


@pytest.mark.parametrize("open_session", SESSIONS.values(), ids=SESSIONS)
async def test_backend_that_speaks_nothing_newer_than_tls_1_1_is_not_spoken_to(
    open_session: OpenSession, certificate: Path
) -> None:
    async with server_of(ssl.TLSVersion.TLSv1_1, certificate) as url, open_session() as session:
        assert await _can_be_spoken(ssl.TLSVersion.TLSv1_1, url)
        with pytest.raises(aiohttp.ClientConnectorError) as caught:
            await session.get(url)
        assert not isinstance(caught.value, aiohttp.ClientConnectorCertificateError), "it came as far as a certificate"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("open_session", SESSIONS.values(), ids=SESSIONS)
async def test_backend_whose_certificate_nobody_vouches_for_gets_no_request(
    open_session: OpenSession, certificate: Path, version: ssl.TLSVersion
) -> None:
    """And so these versions are spoken: the certificate comes after them."""
    async with server_of(version, certificate) as url, open_session() as session:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.get(url)
