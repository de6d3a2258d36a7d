"""TLS over a connection: a socket that encrypts what is sent on it, and takes only what a trusted peer has sent.

Guarantees:

1. Both ends prove who they are, by certificates of one authority or by a shared key, before a byte of a migration
   passes.
2. Reads and writes wait and end as those of a plain socket do, by the time limits that the connection was given; one
   thread may read while another one writes, which OpenSSL allows for memory, but not for a connection.
3. The end of a connection is a message of the peer's, too. One without it is an error: somebody may have cut it.
4. A payload is encrypted from where it lies, and decrypted to where it belongs; only what is encrypted is copied.

The bytes are TLS 1.3 alone (RFC 8446). A server gives out no tickets: what nobody reads would reset a connection.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from migpool.errors import PeerGone, TimeLimitExceeded, Untrusted

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

TLS_VERSION: Final = ssl.TLSVersion.TLSv1_3
"""The oldest version of TLS that is spoken, and so far the newest."""
TICK: Final = 0.2
"""How long a wait in a handshake lasts at most before it is looked whether to go on, in seconds."""
_AT_ONCE: Final = 1 << 17
"""Bytes that are encrypted, or read to be decrypted, at once: eight records; with fewer, more is moved in memory."""
_HANDSHAKE, _ALERT = 22, 21
_NO_TLS: Final = bytes((_ALERT, 3, 3, 0, 2, 2, 70))
"""A fatal alert, protocol_version: what a peer hears that does not speak TLS at all."""


class TlsSocket(socket.socket):
    """A connected socket whose bytes are encrypted, once :meth:`shake_hands` has returned true.

    Arguments:
        plain: the connection; it is this object's from now on.
        context: this end's credentials.
        server: whether this end was connected to.
        name: what the server's certificate must be for, at the client.
        peer: the other end's name in errors.
    """

    def __init__(self, plain: socket.socket, context: ssl.SSLContext, *, server: bool, name: str, peer: str) -> None:
        timeout = plain.gettimeout()
        super().__init__(plain.family, plain.type, plain.proto, plain.detach())
        self.settimeout(timeout)
        self.peer = peer
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=server, server_hostname=None if server else name)
        self._memory = Lock()
        """Held for work on memory alone, never during a wait."""
        self._writing = Lock()
        self._reading = Lock()
        self._raw = memoryview(bytearray(_AT_ONCE))
        self._heard = False
        self._early = b""
        self._unsent: memoryview = memoryview(b"")
        self._begun = 0
        self._ended = self._over = False
        self._refusal: Untrusted | None = None

    def shake_hands(self) -> bool:
        """Go on with the handshake, when there is something to read or nothing was sent yet; whether it is over.

        Raises:
            Untrusted: the other end is not who it must be, does not trust this one, or speaks no TLS.
            PeerGone: it has ended the connection.
        """
        if not self._heard and not readable(self):
            self._step()  # a client speaks first
            return False
        try:
            self._fill()
        except BlockingIOError:
            return False
        except OSError as error:
            raise self._gone_in_handshake(error.strerror or str(error)) from None
        return self._step()

    def _step(self) -> bool:
        try:
            with self._memory:
                self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLEOFError:
            raise self._gone_in_handshake("the end") from None
        except ssl.SSLError as error:
            raise self._refused(error) from None
        finally:
            # Also an alert: the other end is to know why.
            with contextlib.suppress(OSError):
                self._unsent = memoryview(self._out.read())
                self._flush()
        return True

    def _gone_in_handshake(self, how: str) -> PeerGone:
        return PeerGone(
            f"{self.peer} ended the connection during the TLS handshake ({how}): see there, it may not use TLS"
        )

    # ------------------------------------------------------------------ what is read

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        view = memoryview(buffer)
        size = nbytes or len(view)
        whole = flags & socket.MSG_WAITALL
        got = 0
        if self._early:
            got = min(size, len(self._early))
            view[:got] = self._early[:got]
            self._early = self._early[got:]
        read = self._tls.read
        more = 1
        while got < size and more:
            try:
                with self._memory:
                    while got < size and more:  # a record at a time, of 16 KiB at the most
                        more = int(read(size - got, view[got:size]))
                        got += more
            except ssl.SSLWantReadError:
                if got and not whole:
                    break
                try:
                    self._fill()
                except BlockingIOError:
                    if got:
                        break
                    raise
                continue
            except ssl.SSLZeroReturnError:
                break
            except ssl.SSLEOFError:
                if got:
                    break
                raise PeerGone(f"the connection was cut: {self.peer} has not said that it ends") from None
            except ssl.SSLError as error:
                raise self._refused(error) from None
        return got

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        # Twice what is decrypted at once: nothing that a selector does not see is left where that much is asked for.
        buffer = bytearray(min(bufsize, 2 * _AT_ONCE))
        got = self.recv_into(buffer, 0, flags)
        return bytes(memoryview(buffer)[:got])  # not shortened: who watches the thread may have its frame

    def recvmsg_into(  # type: ignore[override]  # nothing comes beside the bytes
        self, buffers: Sequence[memoryview], ancbufsize: int = 0, flags: int = 0
    ) -> tuple[int, list[Any], int, None]:
        del ancbufsize
        got = 0
        for view in buffers:
            try:
                more = self.recv_into(view, len(view), flags)
            except BlockingIOError:
                if got:
                    break
                raise
            got += more
            if more < len(view):
                break
        return got, [], 0, None

    @property
    def unread(self) -> bool:
        """Whether something was read of the connection that nobody has received: no wait for it sees that."""
        return bool(self._early or self._in.pending or self._tls.pending())

    def _fill(self) -> None:
        """Take what has come, perhaps the end; waits for the first of it."""
        with self._reading:
            got = super().recv_into(self._raw)
            if not self._heard and got:
                self._heard = True
                if self._raw[0] not in (_HANDSHAKE, _ALERT):
                    with contextlib.suppress(OSError):
                        super().send(_NO_TLS)
                    raise Untrusted(f"{self.peer} does not use TLS: give --tls at both ends")
            with self._memory:
                if got:
                    self._in.write(self._raw[:got])
                else:
                    self._over = True
                    self._in.write_eof()

    def _refused(self, error: ssl.SSLError) -> Untrusted:
        self._refusal = self._refusal or Untrusted(_told(error, self.peer))
        return self._refusal

    # ------------------------------------------------------------------ what is sent

    def sendmsg(  # type: ignore[override]  # nothing goes beside the bytes
        self, buffers: Sequence[ReadableBuffer], ancdata: Sequence[Any] = (), flags: int = 0
    ) -> int:
        """Send buffers; how much of them was taken, as of a plain socket. What is left must be sent next, as it is."""
        del ancdata, flags
        with self._writing:
            sent = 0
            try:
                self._flush()
                if self._begun:
                    sent, self._begun = self._begun, 0
                passed, size = -sent, 0
                for buffer in buffers:
                    view = memoryview(buffer)
                    at = min(len(view), max(0, -passed))
                    passed += len(view)
                    while at < len(view):
                        piece = view[at : at + _AT_ONCE - size]
                        with self._memory:
                            self._tls.write(piece)
                        at += len(piece)
                        size += len(piece)
                        if size == _AT_ONCE:
                            sent += self._send_encrypted(size)
                            size = 0
                if size:
                    sent += self._send_encrypted(size)
            except BlockingIOError:
                if not sent:
                    raise
            except OSError as error:
                self._look_for_refusal()
                if isinstance(error, ssl.SSLError):
                    raise BrokenPipeError(0, "it has ended") from None
                raise
            return sent

    def _send_encrypted(self, size: int) -> int:
        with self._memory:
            self._unsent = memoryview(self._out.read())
        self._begun = size
        self._flush()
        self._begun = 0
        return size

    def _flush(self) -> None:
        while self._unsent:
            self._unsent = self._unsent[super().send(self._unsent) :]

    def _look_for_refusal(self) -> None:
        """Raise why the other end takes nothing, if it has said so."""
        with contextlib.suppress(OSError, PeerGone):
            while self._refusal is None and not self._over and readable(self):
                self._fill()
        with self._memory:
            self._drain()
        if self._refusal is not None:
            raise self._refusal

    def look(self) -> None:
        """See whether the other end has refused this one since: a client hears of it only after its handshake.

        Raises:
            Untrusted: it has.
        """
        if self._refusal is not None or readable(self):
            self._look_for_refusal()

    def _drain(self) -> None:
        """Keep what can be decrypted, without a wait."""
        try:
            while data := self._tls.read(_AT_ONCE):
                self._early += data
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return
        except ssl.SSLError as error:
            self._refused(error)

    # ------------------------------------------------------------------ the end

    def shutdown(self, how: int) -> None:
        if how != socket.SHUT_RD:
            self._say_end()
        super().shutdown(how)

    def close(self) -> None:
        if self.fileno() >= 0:
            self._say_end()
        super().close()

    def _say_end(self) -> None:
        """Tell the other end that nothing follows, if that can be done at once and nothing is sent half."""
        if not self._writing.acquire(blocking=False):
            return
        try:
            if self._ended or self._begun or self._refusal is not None:
                return
            self._ended = True
            with self._memory, contextlib.suppress(ssl.SSLError, ValueError):
                self._drain()  # OpenSSL gives up where data waits behind its own end
                self._tls.unwrap()
            with contextlib.suppress(OSError):
                super().send(self._out.read(), socket.MSG_DONTWAIT)
        finally:
            self._writing.release()


def shake_hands(sock: TlsSocket, deadline: float, limit: float, check: Callable[[], object]) -> None:
    """Carry out a handshake.

    Arguments:
        deadline: until when, by CLOCK_MONOTONIC in seconds.
        limit: the whole limit that it is the end of, for the error.
        check: called several times a second; raises to give up.

    Raises:
        Untrusted, PeerGone: as :meth:`TlsSocket.shake_hands`.
        TimeLimitExceeded: the other end does not go on with it.
    """
    timeout = sock.gettimeout()
    sock.setblocking(False)
    while not sock.shake_hands():
        while not readable(sock, TICK):
            check()
            if time.monotonic() >= deadline:
                raise TimeLimitExceeded(
                    f"{sock.peer} has not ended the TLS handshake within {limit:g} s: see whether it uses TLS"
                )
    sock.settimeout(timeout)


def is_unread(sock: socket.socket) -> bool:
    """Whether something was read of a connection, encrypted or not, that no wait for it sees."""
    return isinstance(sock, TlsSocket) and sock.unread


def look(sock: socket.socket) -> None:
    """See whether the destination has refused a connection on which it says nothing yet.

    Raises:
        Untrusted: it has; or it wants TLS, and this end was told of none.
    """
    if isinstance(sock, TlsSocket):
        sock.look()
    elif readable(sock):
        with contextlib.suppress(OSError):
            check_plain(sock.recv(2, socket.MSG_PEEK))


def check_plain(first: bytes | bytearray | memoryview) -> None:
    """See what a destination says first on a connection that is not encrypted.

    Raises:
        Untrusted: it is that it wants TLS.
    """
    if first[:2] == _NO_TLS[:2]:
        raise Untrusted("the destination uses TLS: give --tls here, too")


def readable(sock: socket.socket, seconds: float = 0) -> bool:
    """Whether something can be read of a connection, be it the end, within so many seconds."""
    waiting = select.poll()
    waiting.register(sock, select.POLLIN)
    return bool(waiting.poll(seconds * 1000))


def _told(error: ssl.SSLError, peer: str) -> str:
    """What an error of OpenSSL's means, for who has to repair it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate of {peer} is not accepted: {error.verify_message.rstrip('.')}"
    reason = (error.reason or str(error)).replace("_", " ").lower()
    _, alert, what = reason.partition("alert ")
    if alert:
        return f"{peer} does not trust this end: it answered {what!r}"
    if reason == "peer did not return a certificate":
        return f"{peer} has shown no certificate: it needs client-cert.pem and client-key.pem"
    return f"TLS with {peer} failed: {reason}"
