"""A test authority: certificates for both ends, in the layout of :mod:`migpool.transport.credentials`, or a shared key.

The authority's own key is in no file: nobody can have it sign another certificate.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from migpool.errors import UsageError
from migpool.transport.credentials import LOCAL_NAME, PSK_NAME

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

CLOCKS: datetime.timedelta = datetime.timedelta(minutes=5)
"""How much later another host's clock may be."""


def new_authority(directory: Path, names: Sequence[str], days: float, began: datetime.datetime | None = None) -> None:
    """Make an authority, and a certificate of its for each end.

    Arguments:
        directory: for the files; made if it is not there.
        names: of the destination, host names or addresses; ``localhost`` and its addresses are always among them.
        days: for how long it holds.
        began: since when; a moment ago by default.

    Raises:
        UsageError: the directory holds something already, or cannot be written; the package is missing; a name is none.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID as Usage
    except ImportError:
        raise UsageError("certificates need the package cryptography: pip install 'migpool[tls]'") from None
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name(
        [x509.NameAttribute(x509.NameOID.COMMON_NAME, f"migpool test authority {secrets.token_hex(4)}")]
    )
    begin = began or datetime.datetime.now(datetime.UTC) - CLOCKS
    end = begin + datetime.timedelta(days=days)

    def signed(name: x509.Name, key: EllipticCurvePrivateKey, *extensions: tuple[x509.ExtensionType, bool]) -> bytes:
        builder = (
            x509.CertificateBuilder(ca_name, name, key.public_key(), x509.random_serial_number(), begin, end)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(ca_key, hashes.SHA256()).public_bytes(Encoding.PEM)

    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    try:
        alternatives = x509.SubjectAlternativeName(_names([LOCAL_NAME, "127.0.0.1", "::1", *names]))
    except ValueError as error:
        raise UsageError(f"a certificate cannot be for one of {', '.join(names)}: {error}") from None
    ca_usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    files = {
        "ca-cert.pem": signed(ca_name, ca_key, (x509.BasicConstraints(ca=True, path_length=0), True), (ca_usage, True))
    }
    for role, usage in (("server", Usage.SERVER_AUTH), ("client", Usage.CLIENT_AUTH)):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"migpool {role}")])
        own = [(x509.BasicConstraints(ca=False, path_length=None), True), (x509.ExtendedKeyUsage([usage]), False)]
        if role == "server":
            own.append((alternatives, False))
        files[f"{role}-cert.pem"] = signed(subject, key, *own)
        files[f"{role}-key.pem"] = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    _write(directory, files)


def new_key(directory: Path) -> None:
    """Make a key that both ends share.

    Raises:
        UsageError: the directory holds something already, or cannot be written.
    """
    _write(directory, {"keys.psk": f"{PSK_NAME}:{secrets.token_hex(32)}\n".encode()})


def _names(names: Iterable[str]) -> list[x509.GeneralName]:
    from cryptography import x509

    found: list[x509.GeneralName] = []
    for name in dict.fromkeys(names):
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return found


def _write(directory: Path, files: dict[str, bytes]) -> None:
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        if any(directory.iterdir()):
            raise UsageError(f"{directory} is not empty: name a new directory, as who uses these would lose them")
        for name, data in files.items():
            # Keys are for this user alone from the moment on that they are there.
            mode = 0o644 if name.endswith("-cert.pem") else 0o600
            with open(os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:  # noqa: PTH123
                file.write(data)
    except OSError as error:
        raise UsageError(f"{error.filename or directory} cannot be written: {error.strerror or error}") from None
