"""Connections that are not plain channels, and packets with device state, as an explanation shows them."""

from __future__ import annotations

import struct
from pathlib import Path
from tempfile import TemporaryDirectory

from migpool.streams.record.explain import explain
from migpool.wire.commands import Command, CommandKind, command
from migpool.wire.configuration import Configuration, configuration
from migpool.wire.devicestate import DeviceStateHeader
from migpool.wire.multifd import initial_packet
from migpool.wire.ram import pages as ram_pages
from migpool.wire.records import frame_config
from migpool.wire.stream import header
from tests.support.commandline import here
from tests.support.made_recordings import MS, Made, Role, begin, end, ram_end, recording


def test_the_preempt_channel_of_a_postcopy_is_called_so_and_its_pages_are_counted(tmp_path: Path) -> None:
    advise = command(Command(CommandKind.POSTCOPY_ADVISE, struct.pack(">QQ", 4096, 4096)))
    prologue = header() + configuration(Configuration("made")) + advise
    rest = begin()[len(header() + configuration(Configuration("made"))) :]
    main = Made(Role.MAIN, None, [(1, prologue + rest + ram_end() + end())])
    pages = [b"".join(map(bytes, ram_pages("pc.ram", [(at, bytes(4096)), (at + 4096, None)]))) for at in (0, 8192)]
    for content, counts, trouble in (
        ([(2, pages[0]), (3, pages[1])], (2, 2), ""),
        ([], (0, 0), ""),
        ([(2, pages[0] + b"\xff" * 9)], (1, 1), "word of the preempt channel at byte 4120"),
    ):
        with TemporaryDirectory(dir=tmp_path) as folder:
            made = recording(Path(folder) / "r", [main, Made(Role.UNKNOWN, None, content)])
            use = explain(made).channels[-1]
        assert use.name == "preempt channel"
        assert (use.pages, use.zero_pages) == counts
        assert use.trouble.startswith(trouble)


def test_what_is_no_channel_of_a_migration_is_named(tmp_path: Path) -> None:
    main = Made(Role.MAIN, None, [(1, begin() + ram_end() + end())])
    tls = Made(Role.UNKNOWN, None, [(1, b"\x16\x03\x01\x02\0\1\0" + bytes(90))])
    use = explain(recording(tmp_path / "tls", [main, tls])).channels[-1]
    assert use.trouble.startswith("this is a TLS connection (16 03)")
    probe = explain(recording(tmp_path / "probe", [main, Made(Role.UNKNOWN, None, [])])).channels[-1]
    assert (probe.name, probe.trouble) == ("connection 1, closed without a byte", "")


def test_packets_with_device_state_are_listed_channel_by_channel_as_they_came(tmp_path: Path) -> None:
    def packet(idstr: str, index: int, size: int, config: bool = False) -> bytes:
        head = DeviceStateHeader(idstr)
        head.pack(index, size, config)
        return bytes(head.buffer) + bytes(size)

    vfio = b"".join(map(bytes, frame_config(bytes(276))))
    head = DeviceStateHeader("0000:00:01.0/vfio")
    head.pack(2, len(vfio), True)
    channels = [
        Made(Role.MULTIFD, 0, [(1, initial_packet(0)), (2, packet("0000:00:01.0/vfio", 1, 7)),
                               (3, bytes(head.buffer) + vfio)]),
        Made(Role.MULTIFD, 1, [(1, initial_packet(1)), (4, packet("0000:00:01.0/vfio", 0, 9)),
                               (5, packet("0000:00:02.0/vfio", 0, 1))]),
    ]  # fmt: skip
    made = recording(tmp_path / "r", [Made(Role.MAIN, None, [(1, begin() + ram_end() + end())]), *channels])
    assert [
        (one.channel, one.when, one.idstr, one.index, one.flags, one.size) for one in explain(made).device_packets
    ] == [
        (0, 2 * MS, "0000:00:01.0/vfio", 1, 0, 7),
        (0, 3 * MS, "0000:00:01.0/vfio", 2, 1, len(vfio)),
        (1, 4 * MS, "0000:00:01.0/vfio", 0, 0, 9),
        (1, 5 * MS, "0000:00:02.0/vfio", 0, 0, 1),
    ]
    ended = here("inspect", str(made))
    assert "channel 0: 3.0 ms 0000:00:01.0/vfio index 2, flags 1, config, 292 bytes at byte" in ended.out
    shown = here("inspect", str(made), "--device", "*01.0/vfio")
    assert shown.code == 0
    assert "version 0, index 0, flags 0, 9 bytes at byte 64 of channel 1" in shown.out
    assert "size              276 bytes" in shown.out
