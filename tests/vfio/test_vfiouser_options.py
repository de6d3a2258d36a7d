"""The options of an entry whose devices are those of servers that run already, and of ``migpool vfio serve``."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from migpool.device import DeviceContext, DeviceError, OptionValue
from migpool_plugins.vfio import devices
from migpool_plugins.vfio.vfiouser.options import socket_paths
from tests.support.commandline import here
from tests.support.vfio.vfiouser_rig import LIMIT, RawClient, hand_server


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def test_sockets_of_several_devices_are_numbered() -> None:
    assert socket_paths("/run/vf", 1) == ["/run/vf"]
    assert socket_paths("/run/vf", 3) == ["/run/vf.0", "/run/vf.1", "/run/vf.2"]


@pytest.mark.parametrize(
    ("options", "count", "message"),
    [
        ({}, 1, "option socket is None: use the path of a server's socket"),
        ({"socket": 3}, 1, "option socket is 3: use the path"),
        ({"socket": ["a", "b"]}, 3, "option socket has 2 for 3 devices: give a list, one for each"),
        ({"socket": {"source": "a"}}, 1, 'a table with "source" and "destination"'),
        ({"socket": {"source": 1, "destination": "b"}}, 1, "option socket.source is 1"),
        ({"socket": "a", "size": 5}, 1, 'size is unknown to backend "vfio-user": use backend, bus, connect_limit'),
        ({"socket": "a", "bus": 0}, 1, "option bus is 0: use a whole number from 1 to 255"),
        ({"socket": "a", "outstanding": 0}, 1, "option outstanding is 0: use a whole number from 1 to 128"),
        ({"socket": "a", "write_size": "1GiB"}, 1, "option write_size is '1GiB': use 1 to"),
        ({"socket": "a", "write_size": 0}, 1, "option write_size is 0: use 1 to"),
        ({"socket": "a", "precopy": 1}, 1, "option precopy is 1: use true or false"),
        ({"socket": "a", "time_limit": 0}, 1, "option time_limit is 0: use seconds over 0"),
        (
            {"socket": "a", "connect_limit": "1h"},
            1,
            "connect_limit is '1h': use seconds over 0, at most 3600, or text with us",
        ),
    ],
)
def test_a_wrong_option_is_one_line(options: dict[str, OptionValue], count: int, message: str) -> None:
    with pytest.raises(DeviceError) as caught:
        devices(DeviceContext("source", {"backend": "vfio-user", **options}, count))
    assert message in str(caught.value)


def test_an_unknown_backend_is_one_line() -> None:
    with pytest.raises(DeviceError, match="vfio option backend is 'hardware': use \"emulated\"") as caught:
        devices(DeviceContext("source", {"backend": "hardware"}))
    assert '"vfio-user"' in str(caught.value)


def test_each_side_has_its_socket_and_a_device_that_is_not_there_closes_the_others(directory: Path) -> None:
    with hand_server(directory) as server:
        sockets = {"source": [server.path, str(directory / "none")], "destination": [server.path]}
        options: dict[str, OptionValue] = {"backend": "vfio-user", "socket": sockets, "connect_limit": "50ms"}
        with pytest.raises(DeviceError, match=r"0000:02:00\.0/vfio: there is no vfio-user server at .*/none: start"):
            devices(DeviceContext("source", options, 2))
        (device,) = devices(DeviceContext("destination", {**options, "bus": 7}))
        assert device.idstr == "0000:07:00.0/vfio"
        assert device.note == f"vfio-user server {server.path}"
        device.close()


def test_serve_answers_until_a_signal_and_says_why_it_refused(directory: Path) -> None:
    command = [sys.executable, "-m", "migpool", "vfio", "serve", "tiny", "--socket", str(directory / "s"), "-n", "2"]
    with subprocess.Popen(
        [*command, "-o", "size=8KiB", "-o", "precopy=true", "-o", "initial_size=1000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        lines = [server.stdout.readline() for _ in range(2)]
        assert lines == [f"0000:0{n + 1}:00.0/vfio listens at {directory}/s.{n}\n" for n in range(2)]
        client = RawClient(str(directory / "s.1"))
        assert client.feature(1 << 16 | 9)[1] == (8192).to_bytes(8, sys.byteorder)
        assert client.go("ERROR") != 0
        assert server.stderr.readline() == "0000:02:00.0/vfio: a device that is in RUNNING cannot become ERROR\n"
        client.send(13)  # a client that is in the middle of something holds nothing up
        server.send_signal(signal.SIGTERM)
        assert server.wait(LIMIT) == 0
        client.close()
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["huge"], "vfio option profile is 'huge': use one of"),
        (["tiny", "-o", "size"], "option 'size' is no KEY=VALUE"),
        (["tiny", "-o", "fault={at=1, kind=\"short-read\"}"], "it is a client that reads short"),
        (["tiny", "-n", "0"], "vfio option count is 0"),
        (["tiny", "-o", "dirty_rate=5"], "dirty_rate is 5: use it with precopy = true"),
    ],
)  # fmt: skip
def test_a_server_that_cannot_be_is_one_line(arguments: list[str], message: str, directory: Path) -> None:
    ended = here("vfio", "serve", *arguments, "--socket", str(directory / "s"))
    assert ended.code != 0
    assert message in ended.err
    assert ended.err.count("\n") == 1
    assert list(directory.iterdir()) == []
