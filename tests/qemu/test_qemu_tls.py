"""TLS with a real QEMU as either end: the guest goes on, and whoever is not trusted is told so at both ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from migpool.transport.authority import new_key
from migpool.transport.credentials import credentials
from tests.qemu.qemu_guest import Guest, continues, set_up
from tests.qemu.qemuprocess import QemuProcess
from tests.qemu.tool import Tool, migpool
from tests.support.certificates import Certificates


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    pytest.importorskip("cryptography")
    return Certificates(tmp_path_factory.mktemp("pki"))


def encrypts(qemu: QemuProcess, directory: Path, end: str, channels: int, kind: str = "x509") -> None:
    """Have a QEMU take its credentials from a directory, for a migration with some channels."""
    # Without the check a QEMU shows what it would not, and so the other end has to see it.
    proof = {"verify-peer": True, "sanity-check": False} if kind == "x509" else {}
    qemu.execute(
        "object-add",
        {"qom-type": f"tls-creds-{kind}", "id": "tls", "dir": str(directory), "endpoint": end, **proof},
    )
    capabilities = ("return-path",) if end == "client" else ()
    set_up(qemu, channels=channels, capabilities=capabilities, parameters={"tls-creds": "tls"})


def store(source: QemuProcess, file: Path, theirs: Path, ours: Path, channels: int, kind: str = "x509") -> Tool:
    encrypts(source, theirs, "client", channels, kind)
    tool = Tool(
        *("receive", "--store", str(file), "--listen", "tcp:127.0.0.1:0"),
        *("--channels", str(channels), "--tls", str(ours), "--idle", "20"),
    )
    source.execute("migrate", {"uri": tool.address()})
    return tool


@pytest.mark.parametrize("channels", [0, 2, 4])
def test_a_qemu_is_stored_and_the_guest_goes_on(
    guest: Guest, source: QemuProcess, tmp_path: Path, certificates: Certificates, channels: int
) -> None:
    file = tmp_path / "vm.mig"
    with store(source, file, certificates.good, certificates.good, channels) as tool:
        status = source.wait_for_status("completed", "failed")
        ended = tool.wait()
    assert (status, ended.code) == ("completed", 0), (ended.err, source.stderr)
    assert "the source knows" in ended.out
    with guest.loading(f"file:{file}", source.drain_console()) as loaded:
        assert continues(loaded.wait_for_ticks(2))


def send(qemu: QemuProcess, file: Path, theirs: Path, *options: str, channels: int, kind: str = "x509") -> str:
    """Send a file into a QEMU with credentials; what the tool says, with its exit code first."""
    encrypts(qemu, theirs, "server", channels, kind)
    qemu.execute("migrate-incoming", {"uri": "tcp:127.0.0.1:0", "exit-on-error": False})
    found = qemu.migration()["socket-address"]
    assert isinstance(found, list)
    (address,) = found
    assert isinstance(address, dict)
    to = f"tcp:127.0.0.1:{address['port']}"
    ended = migpool("send", str(file), "--to", to, "--channels", str(channels), "--idle", "10", *options)
    return f"{ended.code} {ended.out}{ended.err}"


@pytest.mark.parametrize("channels", [0, 2, 4])
def test_a_file_is_sent_into_a_qemu_and_the_guest_goes_on(
    guest: Guest, stored: Path, certificates: Certificates, channels: int
) -> None:
    with guest.destination() as qemu:
        said = send(qemu, stored, certificates.good, "--tls", str(certificates.good), channels=channels)
        assert said.startswith("0 ")
        assert "it runs at the destination" in said
        assert qemu.wait_for_status("completed", "failed") == "completed"
        assert qemu.wait_for_ticks(2)[:2] == [3, 4]


@pytest.mark.parametrize(
    ("theirs", "ours", "why"),
    [
        ("stranger", "good", "listening on"),  # it is the QEMU that refuses, perhaps before this end has read a byte
        ("client_old", "trusts_old", "certificate has expired"),
        ("client_of_stranger", "good", "unable to get local issuer certificate"),
    ],
)
def test_a_qemu_that_is_not_trusted_fails_and_its_guest_goes_on(
    source: QemuProcess, tmp_path: Path, certificates: Certificates, theirs: str, ours: str, why: str
) -> None:
    file = tmp_path / "vm.mig"
    with store(source, file, getattr(certificates, theirs), getattr(certificates, ours), 2) as tool:
        assert source.wait_for_status("completed", "failed") == "failed"
        tool.interrupt()  # it waits for another one
        ended = tool.wait()
    assert ended.code == 130
    assert why in ended.err
    assert list(tmp_path.glob("vm.mig*")) == []
    assert continues(source.wait_for_ticks(2))


def test_a_plain_qemu_is_refused_and_its_guest_goes_on(
    source: QemuProcess, tmp_path: Path, certificates: Certificates
) -> None:
    set_up(source, channels=2, capabilities=("return-path",))
    arguments = ("--listen", "tcp:127.0.0.1:0", "--channels", "2", "--tls", str(certificates.good))
    with Tool("receive", "--store", str(tmp_path / "vm.mig"), *arguments) as tool:
        source.execute("migrate", {"uri": tool.address()})
        assert source.wait_for_status("completed", "failed") == "failed"
        tool.interrupt()  # it waits for another one
        ended = tool.wait()
    assert ended.code == 130
    assert "the source does not use TLS: give --tls at both ends" in ended.err
    assert continues(source.wait_for_ticks(2))


@pytest.mark.parametrize(
    ("ours", "options", "why"),
    [
        ("stranger", (), "the certificate of the destination is not accepted"),
        ("good", ("--tls-hostname", "other.example"), "certificate is not valid for 'other.example'"),
        ("client_of_stranger", (), "the destination"),
        ("client_old", (), "the destination"),
        ("", (), "the destination"),
    ],
    ids=["stranger", "another name", "a source of a stranger", "a source that has expired", "plain"],
)
def test_a_qemu_takes_nothing_of_who_is_not_trusted(
    guest: Guest, stored: Path, certificates: Certificates, ours: str, options: tuple[str, ...], why: str
) -> None:
    given = ("--tls", str(getattr(certificates, ours)), *options) if ours else ()
    with guest.destination() as qemu:
        said = send(qemu, stored, certificates.good, *given, channels=2)
        assert said.startswith("1 migpool: ")
        assert why in said
        assert len(said.splitlines()) == 1
        assert not qemu.running()


def test_a_key_is_shared_with_a_qemu(guest: Guest, source: QemuProcess, tmp_path: Path) -> None:
    new_key(tmp_path / "psk")
    try:
        credentials(str(tmp_path / "psk"), "server")
    except Exception as error:  # noqa: BLE001
        pytest.skip(str(error))
    file = tmp_path / "vm.mig"
    with store(source, file, tmp_path / "psk", tmp_path / "psk", 2, "psk") as tool:
        assert source.wait_for_status("completed", "failed") == "completed"
        assert tool.wait().code == 0
    with guest.destination(source.drain_console()) as qemu:
        said = send(qemu, file, tmp_path / "psk", "--tls", str(tmp_path / "psk"), channels=2, kind="psk")
        assert said.startswith("0 "), said
        assert continues(qemu.wait_for_ticks(2))
