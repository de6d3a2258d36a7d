"""TLS by the kernel: it is used where it can be, nothing is lost or changed by it, and an end is an end."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.tls import compare
from migpool.errors import PeerGone
from migpool.migration.settings import Settings
from migpool.migration.states import State
from migpool.transport.address import Address
from migpool.transport.sockets import read_exactly, send_all
from tests.support.certificates import Certificates, fill, trusted
from tests.support.rig import KIB, Pair, Scripted, contents

STATISTICS = Path("/proc/net/tls_stat")
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not STATISTICS.exists(), reason="this kernel has no TLS, or its module tls is not loaded"),
]
LIMIT = 250.0


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("pki"))


@pytest.fixture(autouse=True)
def no_errors() -> Iterator[None]:
    yield
    assert counted("TlsDecryptError") == 0


def counted(what: str) -> int:
    """A figure of the kernel's: of all connections since it was started."""
    lines = map(str.split, STATISTICS.read_text().splitlines())
    return {name: int(count) for name, count in lines}[what]


def test_every_byte_arrives_once_and_in_order(certificates: Certificates) -> None:
    sizes = [0, 1, 288, 4096, 16384, 16385, 65536, 65537, 3_000_000, 5]
    data = [contents(size, size) for size in sizes]
    got = bytearray(sum(sizes))
    before = counted("TlsTxSw")
    client, server = trusted(certificates, tcp=True)
    with client, server:
        assert counted("TlsTxSw") == before + 1
        thread = threading.Thread(target=read_exactly, args=(server, got, len(got), lambda: None))
        thread.start()
        send_all(client, [data[0], data[1]], "small ones")
        send_all(client, data[2:], "large ones")
        thread.join(LIMIT)
        server.sendmsg([b"an answer"])
        answer = bytearray(9)
        assert read_exactly(client, answer, 9, lambda: None) == 9
        assert answer == b"an answer"
    assert got == b"".join(data)


@pytest.mark.parametrize("cut", [False, True], ids=["ended", "cut"])
def test_what_waits_in_full_buffers_arrives_with_its_end_and_a_cut_is_an_error(
    certificates: Certificates, *, cut: bool
) -> None:
    client, server = trusted(certificates, tcp=True)
    with client, server:
        sent, got = fill(client, server)
        thread = threading.Thread(target=end, args=(client,), kwargs={"cut": cut})
        thread.start()
        rest = bytearray(sent - got + 1)
        if cut:
            with pytest.raises(PeerGone, match="was cut"):
                read_exactly(server, rest, len(rest), lambda: None)
        else:
            assert read_exactly(server, rest, len(rest), lambda: None) == sent - got
        thread.join(LIMIT)


def end(client: socket.socket, *, cut: bool) -> None:
    client.settimeout(LIMIT)
    if cut:
        with socket.socket(fileno=os.dup(client.fileno())) as bare:
            bare.shutdown(socket.SHUT_WR)
    else:
        client.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("listen", [Address(host="127.0.0.1"), None], ids=["tcp", "unix"])
def test_a_migration_over_tcp_is_encrypted_by_the_kernel(
    tmp_path: Path, certificates: Certificates, listen: Address | None
) -> None:
    state = contents(300 * KIB)
    settings = Settings(
        channels=2, chunk=16 * KIB, budget=256 * KIB, peer_limit=60, connect_limit=60, tls=str(certificates.good)
    )
    loaded = Scripted(1)
    pair = Pair([Scripted(1, state)], [loaded], settings, settings, listen=listen)
    before = counted("TlsTxSw")
    sent, received = pair.run(tmp_path)
    assert (sent.outcome, sent.error, received.error) == (State.COMPLETED, "", "")
    assert bytes(loaded.got) == state
    # Both channels and the main channel; a UNIX socket has no such layer.
    assert counted("TlsTxSw") - before == (3 if listen else 0)


def test_what_it_costs(request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str]) -> None:
    rounds = int(request.config.getoption("--tls-rounds", default=0))
    if not rounds:
        pytest.skip("nobody has asked for it with --tls-rounds=N")
    before = counted("TlsTxSw")
    lines = compare(rounds, 16)
    assert counted("TlsTxSw") - before == rounds, "not migpool's way alone was the kernel's"
    with capfd.disabled():
        sys.stdout.write("\n".join(("", *lines, "")))
