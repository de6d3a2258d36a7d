"""The memory of a captured machine: as large as the stream says, and with what stood in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migpool.device import DeviceContext, MemoryDevice, OptionValue
from migpool.errors import DescriptionError, DeviceError, UsageError
from migpool.vmsd.ram import captured_ram
from migpool.wire.configuration import Configuration, configuration
from migpool.wire.ram import RamBlock, block_list, pages, ram_section_end
from migpool.wire.sections import Kind, SectionHead, head_bytes
from migpool.wire.stream import header
from migpool.wire.unread import Buffer
from migpool_plugins.vmsd import devices
from migpool_plugins.vmsd.memory import CapturedMemory
from tests.support.vmsd_captures import stream_path

PAGE = 4096
HEAD = SectionHead(Kind.START, 2, "ram", 0, 4)


def made(blocks: dict[str, int], sent: list[tuple[str, int, bytes | None]]) -> bytes:
    """A stream of RAM alone, each page in a section of its own."""
    listed = [RamBlock(name, size) for name, size in blocks.items()]
    parts: list[Buffer] = [header(), configuration(Configuration("machine")), head_bytes(HEAD), block_list(listed)]
    parts.append(ram_section_end(2))
    for block, address, page in sent:
        head = SectionHead(Kind.PART, 2, "ram", 0, 4)
        parts += [head_bytes(head), *pages(block, [(address, page)]), ram_section_end(2)]
    head = SectionHead(Kind.END, 2, "ram", 0, 4)
    return b"".join(map(bytes, [*parts, head_bytes(head), ram_section_end(2)]))


def held(path: Path, side: str = "source") -> dict[str, bytes]:
    memory = CapturedMemory(path, "source" if side == "source" else "destination")
    try:
        return {block.name: bytes(block.memory) for block in memory.blocks}
    finally:
        memory.close()


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 255)), max_size=12))
def test_the_last_time_that_a_page_was_sent_counts(
    tmp_path_factory: pytest.TempPathFactory, sent: list[tuple[int, int]]
) -> None:
    whole = bytearray(4 * PAGE)
    said: list[tuple[str, int, bytes | None]] = []
    for page, fill in sent:
        content = bytes([fill]) * PAGE
        whole[page * PAGE : (page + 1) * PAGE] = content
        said.append(("pc.ram", page * PAGE, content if fill else None))
    path = tmp_path_factory.mktemp("ram") / "vm.mig"
    path.write_bytes(made({"pc.ram": 4 * PAGE, "other": PAGE}, said))
    assert held(path) == {"pc.ram": whole, "other": bytes(PAGE)}
    assert held(path, "destination") == {"pc.ram": bytes(4 * PAGE), "other": bytes(PAGE)}


def test_a_real_machine_has_the_blocks_and_pages_of_its_stream() -> None:
    found = held(stream_path("q35-min"))
    begin = found["pc.bios"][-16:]
    assert (begin[0], begin[3:5]) == (0xEA, b"\x00\xf0")  # the far jump at which a PC begins, into its firmware
    ram = captured_ram(stream_path("q35-min").read_bytes(), "it")
    assert {name: len(content) for name, content in found.items()} == ram.blocks


def test_it_is_the_first_device_and_nothing_is_written_in_it() -> None:
    options: dict[str, OptionValue] = {"stream": str(stream_path("q35-min")), "memory": True}
    first, *others = devices(DeviceContext("source", options))
    assert isinstance(first, MemoryDevice)
    assert all(not isinstance(device, MemoryDevice) for device in others)
    first.start_dirty_log()
    for number, block in enumerate(first.blocks):
        bits = first.take_dirty(number)
        assert not any(bits)
        assert len(bits) * 8 >= len(block.memory) // PAGE
    first.stop_dirty_log()
    first.close()


def test_a_machine_that_comes_with_the_plugin_has_none() -> None:
    with pytest.raises(UsageError, match="have no memory: give a stream for it"):
        devices(DeviceContext("source", {"machine": "q35-rich", "memory": True}))


@pytest.mark.parametrize("end", [0, 7, 40, 100, 20_000])
def test_a_stream_that_was_cut_is_told(tmp_path: Path, end: int) -> None:
    path = tmp_path / "vm.mig"
    whole = made({"pc.ram": 4 * PAGE}, [("pc.ram", at * PAGE, b"x" * PAGE) for at in range(4)])
    assert len(whole) > 16 * 1024
    path.write_bytes(whole[:end])
    if end > len(whole):
        assert held(path)
        return
    with pytest.raises(DescriptionError):
        held(path)


def test_one_that_is_too_large_is_told(tmp_path: Path) -> None:
    path = tmp_path / "vm.mig"
    path.write_bytes(made({"pc.ram": 1 << 62}, []))
    with pytest.raises(DeviceError, match=f"memory of {1 << 62} bytes cannot be had"):
        held(path)
