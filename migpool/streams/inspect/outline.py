"""A summary as an outline: lines with lines below them. What a terminal draws as a tree and a file gets as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from migpool.streams.inspect.summary import (
    OVER_MULTIFD,
    BlockSummary,
    Framing,
    SectionSummary,
    StreamSummary,
    uuid_text,
)
from migpool.units import KIB, count_of, format_size
from migpool.untrusted.text import printable
from migpool.wire.returnpath import CAPABILITIES

if TYPE_CHECKING:
    from migpool.streams.inspect.decoding import DecodedSection
    from migpool.wire.configuration import Configuration

_LONGEST: Final = 96
_ROW: Final = 16
_ROWS: Final = 8


@dataclass(slots=True)
class Node:
    """One line.

    Arguments:
        label: what it is about.
        detail: what there is to say.
        below: the lines below.
        bad: it says that something is wrong.
    """

    label: str
    detail: str = ""
    below: list[Node] = field(default_factory=list)
    bad: bool = False

    def add(self, label: str, detail: str = "", *, bad: bool = False) -> Node:
        """Append a line below, and return it."""
        node = Node(label, detail, bad=bad)
        self.below.append(node)
        return node


def stream_outline(name: str, summary: StreamSummary) -> Node:
    """The outline of a whole stream.

    Arguments:
        name: how to call it.
        summary: what is in it.
    """
    whole = "walked to the last byte" if summary.problem is None else f"walked to byte {summary.walked}"
    kind = "migration stream" if summary.header_version is not None else "no migration stream"
    if summary.header_version is None and summary.commands:
        kind = "a post-copy that goes on after a break"
    root = Node(printable(name), f"{kind}, {size_text(summary.size)}, {whole}")
    for wrapped in summary.envelope:
        root.add("envelope", printable(wrapped))
    if summary.header_version is not None:
        root.add("header", f"QEVM, version {summary.header_version}")
    if summary.configuration is not None:
        _configuration(root, summary.configuration, summary.page_size)
    if summary.commands:
        below = root.add("commands", str(sum(command.count for command in summary.commands)))
        for command in summary.commands:
            times = f" x {command.count}" if command.count > 1 else ""
            data = f", data {command.data.hex(' ')}" if command.data else ""
            data += f" ... ({command.size} bytes)" if command.size > len(command.data) * command.count else ""
            below.add(command.name, f"at byte {command.offset}{times}{data}")
    _ram(root, summary)
    _sections(root, summary)
    if summary.eof is not None:
        root.add("EOF", f"at byte {summary.eof}")
    _description(root, summary)
    for note in summary.notes:
        root.add("note", note)
    if summary.problem is not None:
        root.add("error", printable(str(summary.problem)), bad=True)
    return root


def size_text(size: int) -> str:
    """Bytes, also in a larger unit if there are many."""
    return f"{size} bytes ({format_size(size)})" if size >= KIB else f"{size} bytes"


def _configuration(root: Node, config: Configuration, page_size: int) -> None:
    below = root.add("configuration", f"at byte {config.offset}")
    below.add("machine", printable(config.machine))
    stated = "" if config.page_bits is not None else ", not stated here"
    below.add("page size", f"{page_size} bytes{stated}")
    if config.capabilities is not None:
        named = below.add("capabilities", printable(", ".join(config.capabilities)) or "none")
        for capability in config.capabilities:
            if capability in CAPABILITIES:
                named.add(capability, CAPABILITIES[capability])
    if config.uuid is not None:
        below.add("uuid", uuid_text(config.uuid))


def _ram(root: Node, summary: StreamSummary) -> None:
    if not summary.blocks and not summary.flushes:
        return
    total = BlockSummary("", 0, None)
    for block in summary.blocks:
        total.add(block)
    used = sum(block.used_length for block in summary.blocks)
    flushes = f", {summary.flushes} multifd flushes" if summary.flushes else ""
    size = f", {size_text(used)}" if used else ""
    below = root.add("ram", f"{count_of(len(summary.blocks), 'block')}{size}; in the stream {_pages(total)}{flushes}")
    for block in summary.blocks:
        gpa = "" if block.gpa is None else f" at {block.gpa:#x}"
        stated = size_text(block.used_length) if block.used_length else "size not stated here"
        below.add(printable(block.name), f"{stated}{gpa}: {_pages(block)}")


def _pages(block: BlockSummary) -> str:
    packed = [f", {count} {name}" for name, count in (("xbzrle", block.xbzrle), ("zlib", block.zlib)) if count]
    return f"{count_of(block.pages, 'page')} ({block.normal} normal, {block.zero} zero{''.join(packed)})"


def _sections(root: Node, summary: StreamSummary) -> None:
    if not summary.sections:
        return
    below = root.add("sections", str(sum(section.count for section in summary.sections)))
    for section in summary.sections:
        below.add(f"{section.kind:5} {section_name(section)}", _section(section))


def section_name(section: SectionSummary) -> str:
    """How ``--device`` would call it: the idstr, with the instance id if it is not 0."""
    instance = f"#{section.instance_id}" if section.instance_id else ""
    return printable(section.idstr) + instance


def _section(section: SectionSummary) -> str:
    if section.kind == OVER_MULTIFD:
        parts = count_of(section.count, "packet")
        return (
            f"over the multifd channels, instance {section.instance_id}, version {section.version}, "
            f"{section.size} bytes in {parts}, the first at byte {section.offset} of its channel"
        )
    times = f" x {section.count}" if section.count > 1 else ""
    framing = "" if section.framing is Framing.SELF else f", {section.framing.value}"
    return (
        f"id {section.section_id}, instance {section.instance_id}, version {section.version}, "
        f"{section.size} bytes at byte {section.offset}{times}{framing}"
    )


def _description(root: Node, summary: StreamSummary) -> None:
    found = summary.description
    if found is None:
        if summary.header_version is not None:
            root.add("description", "none")
    elif found.fault is not None:
        root.add(
            "description", f"{found.size} bytes at byte {found.offset}, unusable: {printable(found.fault)}", bad=True
        )
    elif not found.size:
        root.add("description", f"empty, at byte {found.offset}")
    else:
        more = f" and {found.over_multifd} over the multifd channels" if found.over_multifd else ""
        root.add(
            "description",
            f"{count_of(found.devices or 0, 'device')}{more}, {size_text(found.size)} at byte {found.offset}",
        )


def device_outline(device: DecodedSection) -> Node:
    """The fields of one device."""
    exact = "" if device.fields is None or device.exact else "; encoded again, these fields are OTHER bytes"
    kind = "" if device.section.kind in ("FULL", OVER_MULTIFD) else f"{device.section.kind} section, "
    root = Node(section_name(device.section), kind + _section(device.section) + exact)
    if device.fields is not None:
        for name, value in device.fields.items():
            _value(root, printable(name), value)
        return root
    root.add("not decoded", printable(device.fault or ""))
    for row in _dump(device.payload):
        root.add(row)
    return root


def _value(root: Node, name: str, value: object) -> None:
    if isinstance(value, Mapping):
        below = root.add(name)
        for inner, each in value.items():
            _value(below, printable(str(inner)), each)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        if all(isinstance(each, str) and len(each) <= _ROW for each in value) and value:
            root.add(name, f"[{', '.join(map(str, value))}]")
            return
        below = root.add(name, count_of(len(value), "element"))
        for index, each in enumerate(value):
            _value(below, f"[{index}]", each)
    elif isinstance(value, bool):
        root.add(name, "true" if value else "false")
    else:
        text = str(value)
        cut = len(text) > _LONGEST and " " in text
        root.add(name, f"{text[: _LONGEST - 1]} ... ({(len(text) + 1) // 3} bytes)" if cut else text)


def _dump(payload: bytes) -> Iterator[str]:
    for at in range(0, min(len(payload), _ROW * _ROWS), _ROW):
        yield f"{at:04x}  {payload[at : at + _ROW].hex(' ')}"
    if len(payload) > _ROW * _ROWS:
        yield f"... ({len(payload)} bytes; --json has all)"
