"""``--tls``, ``--insecure`` and ``migpool tls``, as a user gives them."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.commandline import here, migpool, scenario_file, started

STREAM = ROOT / "tests" / "data" / "qemu-streams" / "none.mig"
EVERYWHERE = ("--listen", "tcp:0.0.0.0:0")


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("cryptography")
    directory = tmp_path_factory.mktemp("tls") / "pki"
    ended = here("tls", "new", str(directory), "--name", "192.0.2.7", "--name", "dest.example")
    assert (ended.code, ended.err) == (0, "")
    assert "for localhost, 192.0.2.7, dest.example" in ended.out
    return str(directory)


def test_new_makes_what_both_ends_need_with_keys_for_this_user_alone(pki: str) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) & 0o077 for path in Path(pki).iterdir()}
    assert set(modes) == {
        "ca-cert.pem",
        *(f"{end}-{kind}.pem" for end in ("server", "client") for kind in ("cert", "key")),
    }
    assert not any(mode for name, mode in modes.items() if "key" in name)


def test_new_overwrites_nothing(pki: str) -> None:
    before = {path.name: path.read_bytes() for path in Path(pki).iterdir()}
    for options in ((), ("--psk",)):
        ended = here("tls", "new", pki, *options)
        assert ended.code == 2
        assert "is not empty" in ended.err
    assert {path.name: path.read_bytes() for path in Path(pki).iterdir()} == before


def test_new_makes_a_key(tmp_path: Path) -> None:
    assert here("tls", "new", str(tmp_path / "psk"), "--psk").code == 0
    name, _, key = (tmp_path / "psk" / "keys.psk").read_text().strip().partition(":")
    assert (name, len(bytes.fromhex(key))) == ("qemu", 32)
    assert stat.S_IMODE((tmp_path / "psk" / "keys.psk").stat().st_mode) == 0o600


@pytest.mark.parametrize("way", ["option", "scenario"])
def test_a_machine_moves_where_strangers_could_connect(pki: str, tmp_path: Path, way: str) -> None:
    options: tuple[str, ...] = ("--tls", pki)
    channels = ""
    if way == "scenario":
        options, channels = (), f'[channels]\ntls = "{pki}"\ntls_hostname = "dest.example"'
    scenario = scenario_file(tmp_path / "s.toml", ['plugin = "vfio"\noptions = {size = "1MiB"}'], channels)
    with started("receive", scenario, *EVERYWHERE, *options) as destination:
        port = destination.complained_of("listening on").rpartition(":")[2]
        ended = migpool("send", scenario, "--to", f"tcp:127.0.0.1:{port}", *options)
        assert (ended.code, ended.err) == (0, "")
        assert destination.wait().code == 0


@pytest.mark.parametrize("transport", ["tcp", "unix"])
def test_run_over_tls(pki: str, tmp_path: Path, transport: str) -> None:
    channels = f'[channels]\ntransport = "{transport}"\n[migration]\nsplice = true'
    scenario = scenario_file(tmp_path / "s.toml", ['plugin = "vfio"\noptions = {size = "1MiB"}'], channels)
    ended = migpool("run", scenario, "--tls", pki)
    assert ended.code == 0, ended.err
    assert "state verified" in ended.err


@pytest.mark.parametrize("channels", ["0", "3"])
def test_a_stream_file_is_sent_and_stored(pki: str, tmp_path: Path, channels: str) -> None:
    stored = tmp_path / "stored.mig"
    common = ("--channels", channels, "--tls", pki)
    with started("receive", "--store", str(stored), *EVERYWHERE, *common) as destination:
        port = destination.complained_of("listening on").rpartition(":")[2]
        uuid = ("--uuid", "11a2b3c4-d5e6-4f70-8192-a3b4c5d6e7f8")
        ended = migpool("send", str(STREAM), "--to", f"tcp:127.0.0.1:{port}", *common, *uuid)
        assert (ended.code, ended.err) == (0, "")
        assert destination.wait().code == 0
    assert here("inspect", str(stored)).code == 0


@pytest.mark.parametrize(
    "command", [("receive", "small"), ("receive", "--store", "x.mig"), ("record", "rec", "--to", "unix:x")]
)
def test_nothing_is_listened_on_where_strangers_could_connect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = migpool(*command, *EVERYWHERE)
    assert (ended.code, ended.out) == (2, "")
    (line,) = ended.err.splitlines()
    assert "strangers could connect there" in line
    assert "--insecure" in line
    assert not list(tmp_path.iterdir())
    with started(*command, *EVERYWHERE, "--insecure") as listening:
        listening.complained_of("listening on")
        listening.interrupt()
        assert listening.wait().code == 130


@pytest.mark.parametrize(
    "command",
    [
        ("run", "small"),
        ("compare", "small", "--no-report"),
        ("send", "small", "--to", "unix:x"),
        ("send", str(STREAM), "--to", "unix:x"),
        ("receive", "small", "--listen", "unix:x"),
        ("receive", "--store", "x.mig", "--listen", "unix:x"),
    ],
)
def test_credentials_that_are_none_are_wrong_usage(tmp_path: Path, command: tuple[str, ...]) -> None:
    ended = here(*command, "--tls", str(tmp_path))
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == f"migpool: --tls {tmp_path}: it must hold ca-cert.pem or keys.psk, found neither\n"


def test_who_is_at_the_other_end_of_a_unix_socket_is_logged(tmp_path: Path) -> None:
    with started("receive", "small", "--listen", f"unix:{tmp_path}/s", "-v") as destination:
        destination.complained_of("listening on")
        assert migpool("send", "small", "--to", f"unix:{tmp_path}/s").code == 0
        assert destination.wait().code == 0
        assert "the source is process " in destination.complained()
