"""Names what is no migration stream by its first bytes, and says what to do with it."""

from __future__ import annotations

import re
from typing import Final

_TAR_AT: Final = 257
_KNOWN: Final[tuple[tuple[bytes, str], ...]] = (
    (rb"\x16\x03[\x00-\x04]", "a TLS connection (16 03): it is encrypted, so nothing can be read of it; record it "
                              "without tls-creds on both sides"),
    (rb"QCPR", "CPR's own state (QCPR): the file descriptors that QEMU hands to its successor before the migration "
               "stream, on a channel of their own; inspect the main channel instead"),
    (rb"QEVM\x00\x00\x00[\x00-\x02]", "a stream of QEMU before 0.14 (version 2 or older), whose sections say no "
                                      "versions: load it with a QEMU of its time and save it again"),
    (rb"\x11\x22\x33\x44", "a multifd channel: inspect the main channel's file, or the whole recording"),
    (rb"QFI\xfb", "a qcow2 image inside of something that cannot be read from any place: unpack it first"),
    (rb"KDMV|vhdx|conectix|# Disk Descriptor|QED\x00|<<< ", "a disk image, which holds no machine's state"),
    (rb"\x7fELF", "an ELF file, as dump-guest-memory writes: memory and registers for a debugger, no device's state"),
    (rb"KDUMP   |DISKDUMP|makedumpfile", "a crash dump: memory for a debugger, no device's state"),
    (rb"LibxlFmt|Xen", "a save image of Xen, which QEMU's stream is only a part of"),
    (rb"PK\x03\x04", "a zip archive: unzip it, and inspect what is in it"),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive: 7z x -so FILE | migpool inspect -"),
    (rb"\s*[{\[]", "JSON: a description of state or a dump of one is compared with: migpool vmsd diff A B"),
    (rb"\s*<", "XML, and no stream: of a libvirt save image only the description?"),
    (rb"\x89HDF|\x89PNG|\xff\xd8\xff", "a picture or a data file"),
    (rb"\d+@\d+\.\d+:[a-z]|\d{4}-\d\d-\d\dT[\d:.]+Z ", "a log, not a stream: where the downtime went say "
                                                       "QEMU's traces to migpool explain SOURCE DESTINATION"),
)  # fmt: skip
_STREAM: Final = rb"QEVM\x00\x00\x00\x03[\x01\x04\x07\x08]"


def foreign(first: bytes) -> str:
    """What begins so, and what to do with it, in a few words.

    Arguments:
        first: the first bytes, as many as are known.
    """
    for pattern, name in _KNOWN:
        if re.match(pattern, first):
            return name
    if first[_TAR_AT : _TAR_AT + 5] == b"ustar":
        return "a tar archive: unpack it (tar xf), and inspect what is in it"
    within = re.search(_STREAM, first)
    if within is not None:
        return f"something else before a stream that begins at byte {within.start()}: --offset {within.start()}"
    if first and not any(first):
        return "zeros: if the stream begins further in, say where with --offset"
    shown = first[:8].hex(" ") or "nothing"
    return f"something that is not known here (it begins with {shown}); --offset says where a stream in it begins"
