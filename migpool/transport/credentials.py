"""What this end proves itself with, and whom it takes: a directory as QEMU's credentials for TLS have it.

::

    ca-cert.pem      the authority that both ends trust                  tls-creds-x509
    ca-crl.pem       what it has revoked; may be missing
    server-cert.pem  server-key.pem      the destination's
    client-cert.pem  client-key.pem      the source's
    keys.psk         instead of all that: lines "name:hexadecimal key"   tls-creds-psk

An end needs only its own pair. Both ends are proven: a destination takes no source without a certificate.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Literal, TypeAlias

from migpool.errors import PeerGone, UsageError
from migpool.transport.address import Address
from migpool.transport.tls import KERNEL_TLS, TLS_VERSION, TlsSocket, shake_hands

End: TypeAlias = Literal["client", "server"]
"""Which end of a connection: the source connects, as a client."""

ENDS: Final[tuple[End, End]] = ("client", "server")
PSK_NAME: Final = "qemu"
"""The name in a key file that a client takes, if it is there: QEMU's own."""
LOCAL_NAME: Final = "localhost"
"""What the certificate of a destination behind a UNIX socket must be for."""


@dataclass(frozen=True)
class Credentials:
    """One end's, from a directory.

    Arguments:
        directory: see the top of this file.
        end: which files are needed.
        hostname: what the server's certificate must be for; empty for the host that is connected to.
    """

    directory: str
    end: End
    hostname: str = ""

    @cached_property
    def context(self) -> ssl.SSLContext:
        """The files, read and checked.

        Raises:
            UsageError: one is missing, or cannot be used.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if self.end == "server" else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = TLS_VERSION
        context.sslsocket_class = TlsSocket
        if self.end == "server":
            context.num_tickets = 0
        else:
            context.options |= KERNEL_TLS
        directory = Path(self.directory)
        found = [name for name in ("ca-cert.pem", "keys.psk") if (directory / name).exists()]
        if len(found) != 1:
            what = "both of them" if found else "neither"
            raise UsageError(f"--tls {directory}: it must hold ca-cert.pem or keys.psk, found {what}")
        if found == ["keys.psk"]:
            self._share_a_key(context, directory / "keys.psk")
        else:
            self._certify(context, directory)
        return context

    def connected(
        self, sock: socket.socket, address: Address, deadline: float, limit: float, check: Callable[[], object]
    ) -> TlsSocket:
        """Make a connection to ``address`` a trusted one; see :func:`~migpool.transport.tls.shake_hands`."""
        name = self.hostname or address.host or LOCAL_NAME
        try:
            made = TlsSocket.on(sock, self.context, server=False, name=name, peer="the destination")
        except OSError as error:
            raise PeerGone(
                f"the destination ended the connection before TLS began ({error.strerror or error})"
            ) from None
        try:
            shake_hands(made, deadline, limit, check)
        except BaseException:
            made.close()
            raise
        return made

    def accepted(self, sock: socket.socket) -> TlsSocket:
        """A connection that has been accepted; its handshake is still to be carried out."""
        return TlsSocket.on(sock, self.context, server=True, name="", peer="the source")

    def _certify(self, context: ssl.SSLContext, directory: Path) -> None:
        context.verify_mode = ssl.CERT_REQUIRED
        certificate, key, authority, revoked = (
            directory / name for name in (f"{self.end}-cert.pem", f"{self.end}-key.pem", "ca-cert.pem", "ca-crl.pem")
        )
        for path in (certificate, key):
            if not path.exists():
                raise UsageError(f"--tls {directory}: {path.name} is missing, by which this end proves who it is")
        path = authority
        try:
            context.load_verify_locations(authority)
            if revoked.exists():
                path = revoked
                context.load_verify_locations(revoked)
                context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
            path = certificate
            # Without a password: a prompt would be a wait without a limit.
            context.load_cert_chain(certificate, key, password=lambda: "")
        except ssl.SSLError as error:
            reason = (error.reason or "no PEM").replace("_", " ").lower()
            raise UsageError(f"--tls: {path} cannot be used: {reason}") from None
        except OSError as error:
            raise UsageError(f"--tls: {error.filename or path} cannot be read: {error.strerror or error}") from None

    def _share_a_key(self, context: ssl.SSLContext, path: Path) -> None:
        keys = _keys(path)
        take = getattr(context, f"set_psk_{self.end}_callback", None)
        if take is None:
            raise UsageError(f"--tls: {path}: a shared key needs Python 3.13 or later: use that, or certificates")
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # the key is the proof, and no certificate is offered
        if self.end == "server":
            take(lambda name: keys.get(name or "", b""), None)
        else:
            mine = PSK_NAME if PSK_NAME in keys else next(iter(keys))
            take(lambda _: (mine, keys[mine]))


def _keys(path: Path) -> dict[str, bytes]:
    try:
        lines = [line for line in path.read_text("ascii").splitlines() if line.strip()]
        keys = {name: bytes.fromhex(key) for name, _, key in (line.partition(":") for line in lines)}
    except OSError as error:
        raise UsageError(f"--tls: {path} cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise UsageError(f"--tls: {path}: lines NAME:KEY in ASCII are needed, the key in hexadecimal digits") from None
    if not keys or not all(name and len(key) >= 16 for name, key in keys.items()):
        raise UsageError(f"--tls: {path}: a name and a key of 16 bytes or more are needed in each line")
    return keys


def credentials(directory: str, end: End, hostname: str = "") -> Credentials | None:
    """An end's credentials, read and checked; ``None`` if no directory is named.

    Raises:
        UsageError: a file is missing or cannot be used, or a host name is given without credentials.
    """
    if not directory:
        if hostname:
            raise UsageError("--tls-hostname says whose certificate is right: give --tls, too")
        return None
    made = Credentials(directory, end, hostname)
    assert made.context is not None
    return made
