"""A made-up machine whose pages come several times, as a stream."""

from __future__ import annotations

from migpool.wire.commands import switchover_start
from migpool.wire.configuration import Configuration, configuration
from migpool.wire.ram import RamBlock, block_list, pages, ram_section_end
from migpool.wire.sections import Kind, SectionHead, head_bytes
from migpool.wire.stream import eof, header, vm_description
from tests.support.wire_bytes import section_full

PAGE = 4096
DESCRIPTION = b'{"page_size": 4096, "devices": []}'


def page(number: int) -> bytes:
    """A page that is like no other."""
    return number.to_bytes(8, "big") * (PAGE // 8)


def machine_stream() -> bytes:
    """A machine whose last page of RAM was sent thrice, and another first with content and then as zeros."""
    start = SectionHead(Kind.START, 2, "ram", 0, 4)
    blocks = [RamBlock("pc.ram", 300 * PAGE), RamBlock("vga", 8 * PAGE)]
    first = [(n * PAGE, page(n) if n % 3 else None) for n in range(300)]
    second = [(299 * PAGE, page(1000)), (0, page(1001)), (PAGE, None)]
    third = [(299 * PAGE, page(2000)), (150 * PAGE, page(2001))]
    parts = [
        header(),
        configuration(Configuration("made-up", uuid=bytes(range(16)))),
        head_bytes(start),
        block_list(blocks),
        ram_section_end(2),
    ]
    for name, entries in (("pc.ram", first), ("vga", [(PAGE, page(7))]), ("pc.ram", second), ("pc.ram", third)):
        parts += [
            head_bytes(SectionHead(Kind.PART, 2, "ram", 0, 4)),
            *map(bytes, pages(name, entries)),
            ram_section_end(2),
        ]
    parts += [
        switchover_start(),
        head_bytes(SectionHead(Kind.END, 2, "ram", 0, 4)),
        ram_section_end(2),
        *map(bytes, section_full(5, "device", b"\x00\x06\x00\x00\x00\x02{}" + bytes(range(256)))),
        eof(),
        *map(bytes, vm_description(DESCRIPTION)),
    ]
    return b"".join(parts)
