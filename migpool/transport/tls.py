"""TLS over a connection: a socket that encrypts what is sent on it, and takes only what a trusted peer has sent.

Guarantees:

1. Both ends prove who they are, by certificates of one authority or by a shared key, before a byte of a migration
   passes.
2. Reads and writes wait and end as those of a plain socket do, by the time limits that the connection was given; one
   thread may read while another one writes. OpenSSL never waits: it would keep the one thread out for the other.
3. The end of a connection is a message of the peer's, too. One without it is an error: somebody may have cut it.
4. A payload is encrypted from where it lies, and decrypted to where it belongs. A megabyte is one call of OpenSSL's,
   without the interpreter's lock; only pieces smaller than a record are put together first.
5. Where the kernel has the key, it encrypts (Linux's ``Documentation/networking/tls.rst``): buffers go to it as those
   of a plain socket do, and never through OpenSSL, which would read a piece that is sent half where it lay before.

The bytes are TLS 1.3 alone (RFC 8446). A server gives out no tickets: what nobody reads would reset a connection.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Self, cast

from migpool.errors import PeerGone, TimeLimitExceeded, Untrusted

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

TLS_VERSION: Final = ssl.TLSVersion.TLSv1_3
"""The oldest version of TLS that is spoken, and so far the newest."""
TICK: Final = 0.2
"""How long a wait in a handshake lasts at most before it is looked whether to go on, in seconds."""
RECORD: Final = 1 << 14
"""Bytes that a record of TLS holds at the most."""
_KEPT: Final = 1 << 20
"""Bytes that are read at most, before they are asked for, behind which a refusal may stand."""
_ALERT: Final = 21
_RECORDS: Final = range(20, 24)
"""The types of TLS's records, with which each begins (RFC 8446, 5.1)."""
_NO_TLS: Final = bytes((_ALERT, 3, 3, 0, 2, 2, 70))
"""A fatal alert, protocol_version: what a peer hears that does not speak TLS at all."""
_TIMEVAL: Final = struct.Struct("ll")
KERNEL_TLS: Final = 1 << 3 if sys.platform == "linux" else 0
"""OpenSSL's option to give the kernel its keys; :data:`ssl.OP_ENABLE_KTLS`, which Python names since 3.12."""
_SOL_TLS: Final = 282
_TLS_TX: Final = 1
_CRYPTO_INFO: Final = 4
"""How long the part of an answer to :data:`_TLS_TX` is that has no keys (``<linux/tls.h>``)."""


class TlsSocket(ssl.SSLSocket):
    """A connected socket whose bytes are encrypted, once :meth:`shake_hands` has returned true.

    The descriptor itself never waits; how long a call does is said, as of any socket, by :meth:`settimeout`, or without
    one by the options ``SO_RCVTIMEO`` and ``SO_SNDTIMEO``.

    Attributes:
        peer: the other end's name in errors.
    """

    peer: str
    _timeout: float | None = None
    _memory: Lock
    """Held for calls of OpenSSL's, never during a wait."""
    _writing: Lock
    _heard = False
    _spoken = False
    _early = b""
    _half = False
    """Whether OpenSSL has taken a piece of which not all is sent: what it is given next must be the same."""
    _ended = False
    _by_kernel = False
    """Whether the kernel encrypts what is sent."""
    _refusal: Untrusted | None = None

    def __new__(cls, *arguments: Any, **options: Any) -> Self:
        made = super().__new__(cls, *arguments, **options)
        # Here, since ssl reads of a connection that was reset before it could be wrapped.
        made._memory, made._writing = Lock(), Lock()
        return made

    @classmethod
    def on(cls, plain: socket.socket, context: ssl.SSLContext, *, server: bool, name: str, peer: str) -> TlsSocket:
        """Encrypt a connection.

        Arguments:
            plain: the connection; it is the result's from now on.
            context: this end's credentials, which make sockets of this class.
            server: whether this end was connected to.
            name: what the server's certificate must be for, at the client.
            peer: the other end's name in errors.

        Raises:
            OSError: it is no connection any more.
        """
        made = context.wrap_socket(
            plain,
            server_side=server,
            server_hostname=None if server else name,
            do_handshake_on_connect=False,
            suppress_ragged_eofs=False,
        )
        tls = cast("TlsSocket", made)
        tls.peer = peer
        return tls

    def settimeout(self, value: float | None) -> None:
        self._timeout = value
        super().settimeout(0)

    def setblocking(self, flag: bool) -> None:
        self.settimeout(None if flag else 0)

    def gettimeout(self) -> float | None:
        return self._timeout

    def _wait(self, event: int, limit: int) -> None:
        """Wait until the connection is ready; raises BlockingIOError when the time for that is over."""
        seconds = self._timeout
        if seconds is None:
            whole, rest = _TIMEVAL.unpack(self.getsockopt(socket.SOL_SOCKET, limit, _TIMEVAL.size))
            seconds = (whole + rest / 1e6) or None
        waiting = select.poll()
        waiting.register(self, event)
        if seconds == 0 or not waiting.poll(seconds and max(1, seconds * 1000)):
            raise BlockingIOError(errno.EAGAIN, "the time limit has passed")

    def shake_hands(self) -> bool:
        """Go on with the handshake as far as that needs no wait; whether it is over.

        Raises:
            Untrusted: the other end is not who it must be, does not trust this one, or speaks no TLS.
            PeerGone: it has ended the connection.
        """
        try:
            if not (self._heard or self._hear()):
                return False
            with self._memory:
                self.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLWantWriteError:
            self._heard = True  # it need not hear anything to go on
            return False
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            raise self._gone_in_handshake("the end") from None
        except ssl.SSLError as error:
            raise self._refused(error) from None
        except OSError as error:
            raise self._gone_in_handshake(error.strerror or str(error)) from None
        self._by_kernel = _encrypted_by_kernel(self)
        return True

    def _hear(self) -> bool:
        """See whether what the other end says first is TLS, before OpenSSL takes it; whether to go on.

        A client speaks first. Besides, nobody goes on before something has come: what came in between would be gone,
        and what follows it taken for the first.
        """
        try:
            first = socket.socket.recv(self, 1, socket.MSG_PEEK)
        except BlockingIOError:
            begins = not (self.server_side or self._spoken)
            self._spoken = True
            return begins
        self._heard = True
        if first and first[0] not in _RECORDS:
            with contextlib.suppress(OSError):
                socket.socket.send(self, _NO_TLS)
            raise Untrusted(f"{self.peer} does not use TLS: give --tls at both ends")
        return True

    def _gone_in_handshake(self, how: str) -> PeerGone:
        return PeerGone(
            f"{self.peer} ended the connection during the TLS handshake ({how}): see there, it may not use TLS"
        )

    # ------------------------------------------------------------------ what is read

    def recv_into(self, buffer: WriteableBuffer, nbytes: int | None = None, flags: int = 0) -> int:
        view = memoryview(buffer)
        size = nbytes or len(view)
        whole = flags & socket.MSG_WAITALL
        got = 0
        read = self.read
        while got < size:
            try:
                with self._memory:
                    if self._early:
                        got += self._take_early(view[got:size])
                    while got < size:  # a record at a time
                        more = int(read(size - got, view[got:size]))
                        if not more:
                            return got
                        got += more
            except ssl.SSLWantReadError:
                if got and not whole:
                    break
                try:
                    self._wait(select.POLLIN, socket.SO_RCVTIMEO)
                except BlockingIOError:
                    if got:
                        break
                    raise
            except ssl.SSLWantWriteError:  # an answer to a change of keys
                self._wait(select.POLLOUT, socket.SO_SNDTIMEO)
            except ssl.SSLZeroReturnError:
                break
            except ssl.SSLEOFError:
                if got:
                    break
                raise PeerGone(f"the connection was cut: {self.peer} has not said that it ends") from None
            except ssl.SSLError as error:
                raise self._refused(error) from None
            except ValueError:  # both ends have said that nothing follows
                break
        return got

    def _take_early(self, view: memoryview) -> int:
        size = min(len(view), len(self._early))
        view[:size] = self._early[:size]
        self._early = self._early[size:]
        return size

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        buffer = bytearray(buflen)
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
        return bool(self._early or self.pending())

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
            try:
                return self._hand_over(buffers) if self._by_kernel else self._encrypt(buffers)
            except BlockingIOError:
                raise
            except OSError as error:
                self._look_for_refusal()
                if isinstance(error, ssl.SSLError):
                    raise BrokenPipeError(errno.EPIPE, "it has ended") from None
                raise
            except ValueError:
                raise BrokenPipeError(errno.EPIPE, "it has ended") from None

    def _hand_over(self, buffers: Sequence[ReadableBuffer]) -> int:
        while True:
            try:
                return socket.socket.sendmsg(self, buffers)
            except BlockingIOError:
                self._wait(select.POLLOUT, socket.SO_SNDTIMEO)

    def _encrypt(self, buffers: Sequence[ReadableBuffer]) -> int:
        sent = 0
        try:
            for piece in _pieces(buffers):
                self._send_piece(piece)
                sent += len(piece)
        except BlockingIOError:
            if not sent:
                raise
        return sent

    def _send_piece(self, piece: ReadableBuffer) -> None:
        while True:
            try:
                with self._memory:
                    self._half = True
                    self.write(piece)
                    self._half = False
            except ssl.SSLWantWriteError:
                self._wait(select.POLLOUT, socket.SO_SNDTIMEO)
            else:
                return

    def _look_for_refusal(self) -> None:
        """Raise why the other end takes nothing, if it has said so."""
        if self._refusal is None:
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
        """Keep what can be read without a wait."""
        try:
            with self._memory:
                while len(self._early) < _KEPT and (data := self.read(RECORD)):
                    self._early += data
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, ssl.SSLZeroReturnError, ssl.SSLEOFError, ValueError):
            return
        except ssl.SSLError as error:
            self._refused(error)
        except OSError:
            return

    # ------------------------------------------------------------------ the end

    def shutdown(self, how: int) -> None:
        if how == socket.SHUT_WR:
            # Without room the end would not be said. With it, what the kernel has still to pass on goes before the end.
            with contextlib.suppress(OSError):
                self._wait(select.POLLOUT, socket.SO_SNDTIMEO)
            self._drain()  # OpenSSL gives up where data waits behind its own end
        if how != socket.SHUT_RD:
            self._say_end()
        socket.socket.shutdown(self, how)

    def close(self) -> None:
        if self.fileno() >= 0:
            self._say_end()
        super().close()

    def _say_end(self) -> None:
        """Tell the other end that nothing follows, if that can be done at once and nothing is sent half."""
        if not self._writing.acquire(blocking=False):
            return
        try:
            if self._ended or self._half or self._refusal is not None:
                return
            self._ended = True
            with self._memory, contextlib.suppress(OSError, ValueError):
                self.unwrap()
        finally:
            self._writing.release()


def _encrypted_by_kernel(sock: socket.socket) -> bool:
    """Whether OpenSSL has given the kernel the key by which this end sends."""
    try:
        return bool(sock.getsockopt(_SOL_TLS, _TLS_TX, _CRYPTO_INFO))
    except OSError:  # no kernel with TLS, no TCP, a suite that it does not know
        return False


def _pieces(buffers: Sequence[ReadableBuffer]) -> Iterator[bytes | memoryview]:
    """What is encrypted at once: a buffer as it is, or small ones in one record together."""
    small: list[memoryview] = []
    size = 0
    for buffer in buffers:
        view = memoryview(buffer)
        if small and size + len(view) > RECORD:
            yield small[0] if len(small) == 1 else b"".join(small)
            small, size = [], 0
        if len(view) >= RECORD:
            yield view
        elif len(view):
            small.append(view)
            size += len(view)
    if small:
        yield small[0] if len(small) == 1 else b"".join(small)


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
