"""Trace logs of QEMU: real ones, and made ones whose every time is known."""

from __future__ import annotations

import lzma
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

REAL = Path(__file__).parent.parent / "data" / "qemu-traces"
NAMES = (
    "busy",
    "checkpoints-alone",
    "e1000e-16",
    "e1000e-16-views",
    "e1000e-3-qemu-11",
    "idle",
    "vfio-2",
    "vfio-2-off",
)
START = 1_700_000_000_000_000
"""Microseconds since 1970 at which the made downtimes begin."""


def real(name: str) -> tuple[Path, Path]:
    """The source's log and the destination's."""
    return REAL / name / "source.log.xz", REAL / name / "destination.log.xz"


def lines_of(path: Path) -> list[str]:
    """The lines of a real log."""
    return _text(path).splitlines()


@cache
def _text(path: Path) -> str:
    with lzma.open(path, "rt") as file:
        return file.read()


@dataclass(slots=True)
class Log:
    """One side's log in the making; times are microseconds from the begin of the downtime.

    Arguments:
        ahead: how far the host's clock is ahead.
        dated: whether lines have a date and no thread, as those of QEMU 11.
    """

    ahead: int = 0
    dated: bool = False
    lines: list[tuple[int, str]] = field(default_factory=list)

    def say(self, at: int, event: str, thread: int = 1) -> None:
        self.lines.append((at, self._line(START + at + self.ahead, event, thread)))

    def _line(self, time: int, event: str, thread: int) -> str:
        seconds, rest = divmod(time, 1_000_000)
        if not self.dated:
            return f"{thread}@{seconds}.{rest:06d}:{event}"
        from datetime import UTC, datetime

        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:06d}Z {event}"

    def write(self, path: Path) -> Path:
        self.lines.sort(key=lambda line: line[0])
        path.write_text("".join(f"{line}\n" for _, line in self.lines))
        return path


@dataclass(slots=True)
class Downtime:
    """A downtime: what each device takes to be saved and to be loaded, and the rest of it. Times are microseconds.

    Arguments:
        devices: name, time to save, time to load; the first is RAM.
        stop, start: of the machine.
        network: from the last that was written until it is read.
        behind: for how long the destination still loads what was sent before the stop.
        tail: from the last device's load to the end of loading.
        channel: how long the end of the round waits for channel 0.
        views: of some devices' loads, how many flat views they begin with, and how long each takes.
        pages: how many were dirty in the last rounds of RAM before the stop; none: the log does not say it.
        told: of some devices' loads, how many lines are written meanwhile, and how long each takes.
    """

    devices: Sequence[tuple[str, int, int]]
    stop: int = 500
    start: int = 500
    network: int = 100
    behind: int = 0
    tail: int = 50
    channel: int = 0
    views: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    pages: Sequence[int] = ()
    told: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    ahead: int = 0
    dated: bool = False

    def logs(self, directory: Path) -> tuple[Path, Path, int]:
        """Both logs, and how long the downtime is."""
        ours, theirs = Log(dated=self.dated), Log(self.ahead, self.dated)
        theirs.say(-2000, "qemu_loadvm_state_section_startfull 1(ram) 0 4")
        ours.say(-1030, "multifd_send_fill channel 0 packet_num 3 flags 0x0 next packet size 4096", 7)
        theirs.say(-1010, "multifd_recv_unfill channel 0 packet_num 3 flags 0x0 next packet size 4096", 8)
        theirs.say(-1010, "loadvm_process_command_ping 0x1")
        ours.say(-1000, "source_return_path_thread_pong 0x1")
        for number, pages in enumerate(self.pages):
            ours.say(number - 900, f"migration_bitmap_sync_end dirty_pages {pages}")
        ours.say(0, "vmstate_downtime_checkpoint src-downtime-start")
        ours.say(self.stop, "vmstate_downtime_checkpoint src-vm-stopped")
        at = self.stop
        for name, save, _ in self.devices:
            kind = "iterable" if name == "ram" else "non-iterable"
            if name == "ram" and self.channel:
                ours.say(at + 1, "multifd_send_sync_main_wait channel 0")
                ours.say(at + 1 + self.channel, "multifd_send_sync_main packet num 9")
                save += self.channel
            at += save
            ours.say(at, f"vmstate_downtime_save type={kind} idstr={name} instance_id=0 downtime={save}")
            if name == "ram":
                ours.say(at, "vmstate_downtime_checkpoint src-iterable-saved")
        ours.say(at, "vmstate_downtime_checkpoint src-non-iterable-saved")
        if self.behind:
            theirs.say(-500, "qemu_loadvm_state_section 2")
            theirs.say(-500, "qemu_loadvm_state_section_partend 1")
        at = max(at + self.network, self.behind)
        for number, (name, _, load) in enumerate(self.devices, 1):
            theirs.say(at, f"qemu_loadvm_state_section {3 if name == 'ram' else 4}")
            if name != "ram":
                theirs.say(at, f"qemu_loadvm_state_section_startfull {number}({name}) 0 1")
            kind = "iterable" if name == "ram" else "non-iterable"
            count, each = self.views.get(name, (0, 0))
            for view in range(count):
                theirs.say(at + view * each, f"flatview_new 0x{number:x} (root 0x{view:x})")
            lines, takes = self.told.get(name, (0, 0))
            for line in range(lines):
                theirs.say(at + line * takes, "vmstate_load part")
            at += load
            theirs.say(at, f"vmstate_downtime_load type={kind} idstr={name} instance_id=0 downtime={load}")
        theirs.say(at, "qemu_loadvm_state_post_main 0")
        at += self.tail
        theirs.say(at, "vmstate_downtime_checkpoint dst-precopy-loadvm-completed")
        end = at + self.start
        theirs.say(end, "vmstate_downtime_checkpoint dst-precopy-bh-vm-started")
        theirs.say(end + 1, "migrate_send_rp_message 1: len 4")
        ours.say(end + 10, "source_return_path_thread_shut 0x0")
        ours.say(end + 12, "vmstate_downtime_checkpoint src-downtime-end")
        return ours.write(directory / "source.log"), theirs.write(directory / "destination.log"), end


@dataclass(frozen=True, slots=True)
class Threaded:
    """VFIO devices whose state comes over the multifd channels, each with a thread of its own at both sides; times are
    microseconds.

    Arguments:
        count: how many devices.
        read: how long a thread at the source saves its device.
        load: how long a thread at the destination loads a buffer.
        config: how long it loads the config, one device at a time.
    """

    count: int = 4
    read: int = 1000
    load: int = 1000
    config: int = 1000

    def logs(self, directory: Path) -> tuple[Path, Path, int]:
        """Both logs, and how long the downtime is."""
        ours, theirs = Log(), Log()
        ours.say(-100, "multifd_send_fill channel 0 packet_num 1 flags 0x0 next packet size 0", 5)
        theirs.say(-90, "multifd_recv_unfill channel 0 packet_num 1 flags 0x0 next packet size 0", 5)
        ours.say(0, "vmstate_downtime_checkpoint src-downtime-start")
        ours.say(100, "vmstate_downtime_checkpoint src-vm-stopped")
        theirs.say(150, "loadvm_process_command com=SWITCHOVER_START len=0")
        saved, free, ends = 200 + self.read, 0, []
        for number in range(self.count):
            device, name = f"0000:0{number + 1}:00.0/vfio", f"(0000:{number:02x}:00.0)"
            theirs.say(2 * number - 50, f"qemu_loadvm_state_section_startfull {number + 7}({device}) 0 4")
            theirs.say(2 * number - 49, f"vfio_load_state  {name} data 0xffffffffef100003")
            ours.say(200, f"vfio_save_complete_precopy_thread_start  {name} idstr {device} instance 0", 10 + number)
            ours.say(saved, f"vfio_save_complete_precopy_thread_end  {name} ret 1", 10 + number)
            thread = 20 + number
            theirs.say(160, f"vfio_load_bufs_thread_start  {name}", thread)
            theirs.say(161, f"vfio_load_state_device_buffer_starved  {name} idx 0", thread)
            came = saved + 10
            theirs.say(came, f"vfio_load_state_device_buffer_incoming  {name} idx 0", 5)
            theirs.say(came, f"vfio_load_state_device_buffer_load_start  {name} idx 0", thread)
            loaded = came + self.load
            theirs.say(loaded, f"vfio_load_state_device_buffer_load_end  {name} idx 0", thread)
            begin = max(loaded, free)
            free = begin + self.config
            theirs.say(begin, f"vfio_load_device_config_state_start  {name}", thread)
            theirs.say(free, f"vfio_load_device_config_state_end  {name}", thread)
            theirs.say(free, f"vfio_load_bufs_thread_end  {name}", thread)
            ends.append(free)
        ours.say(saved + 5, "vmstate_downtime_checkpoint src-iterable-saved")
        ours.say(saved + 6, "vmstate_downtime_checkpoint src-non-iterable-saved")
        theirs.say(saved + 20, "vmstate_downtime_load type=non-iterable idstr=timer instance_id=0 downtime=3")
        theirs.say(saved + 21, "qemu_loadvm_state_post_main 0")
        end = max(ends) + 10
        theirs.say(end, "vmstate_downtime_checkpoint dst-precopy-loadvm-completed")
        theirs.say(end + 100, "vmstate_downtime_checkpoint dst-precopy-bh-vm-started")
        ours.say(end + 200, "vmstate_downtime_checkpoint src-downtime-end")
        return ours.write(directory / "source.log"), theirs.write(directory / "destination.log"), end + 100
