"""The certificate for mutual TLS between the components of one server."""

import datetime
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from segmentql.errors import LocalServerError
from segmentql.local.binaries import INSTALL_COMMAND

NOT_AFTER: Final = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
"""The value of RFC 5280 for a certificate that does not expire. The server may run for years."""
NOT_BEFORE: Final = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
"""A time in the past even for a machine with a wrong clock."""


@dataclass(frozen=True)
class Certificate:
    """A self-signed certificate for 127.0.0.1 and its private key, both in PEM format."""

    certificate: str
    key: str


def make_certificate() -> Certificate:
    """Create a private key and a certificate that is its own authority, for servers and clients.

    A component that trusts only this authority accepts only the owner of the key.

    Raises:
        LocalServerError: The package `cryptography` is not installed.
    """
    try:  # a production installation imports this module without having the package
        from cryptography import x509  # noqa: PLC0415
        from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415
        from cryptography.x509.oid import NameOID  # noqa: PLC0415
    except ImportError as error:
        raise LocalServerError(
            f"no certificate for the object store: {INSTALL_COMMAND},"
            " or set SEGMENTQL_S3_ENDPOINT_URL"
        ) from error
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "segmentql")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOT_BEFORE)
        .not_valid_after(NOT_AFTER)
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
    """Return the TLS context of a client that presents this certificate and trusts no other."""
    context = ssl.create_default_context(cafile=certificate)
    context.load_cert_chain(certificate, key)
    return context
