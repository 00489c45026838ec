"""Mutual TLS between the parts of one server: a certificate that nobody else has."""

import datetime
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from segmentql.errors import LocalServerError
from segmentql.local.binaries import INSTALL

FOREVER: Final = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
"""RFC 5280's value for a certificate that does not expire: the server may run for years."""
SINCE: Final = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
"""In the past on every machine, also on one whose clock is wrong."""


@dataclass(frozen=True)
class Certificate:
    """A self-signed certificate for 127.0.0.1 and its private key, both in PEM."""

    certificate: str
    key: str


def make_certificate() -> Certificate:
    """Make a key and a certificate that is its own authority, for servers and for clients.

    Who trusts it as the only authority accepts the owner of its key, and no other.

    Raises:
        LocalServerError: the library for it is not installed.
    """
    try:  # a production install leaves it out, and imports this module nevertheless
        from cryptography import x509  # noqa: PLC0415
        from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415
        from cryptography.x509.oid import NameOID  # noqa: PLC0415
    except ImportError as error:
        raise LocalServerError(
            f"no certificate for the object store: {INSTALL}, or set SEGMENTQL_S3_ENDPOINT_URL"
        ) from error
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "segmentql")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(SINCE)
        .not_valid_after(FOREVER)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            ),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    return Certificate(
        certificate.public_bytes(serialization.Encoding.PEM).decode(),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode(),
    )


def client_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """The TLS of a client that trusts this certificate alone, and shows it."""
    context = ssl.create_default_context(cafile=certificate)
    context.load_cert_chain(certificate, key)
    return context
