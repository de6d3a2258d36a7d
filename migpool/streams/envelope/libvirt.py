"""libvirt's save image: a header, the machine's XML, and the stream, perhaps compressed.

The header has 92 bytes, in the byte order of the host that wrote it (the version tells which)::

     0  [16] "LibvirtQemudSave"; "LibvirtQemudPart" until it is whole
    16  u32  version, 1 or 2 and a few more in later days
    20  u32  bytes behind the header: the XML, a NUL, perhaps a second XML (the cookie)
    24  u32  whether the machine ran
    28  u32  how the stream is compressed: 0 not, 1 gzip, 2 bzip2, 3 xz, 4 lzop, 5 zstd, 6 sparse (mapped-ram)
    32  u32  where the cookie begins; then 14 u32 that are not used
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from migpool.errors import UsageError
from migpool.streams.envelope.source import Source

WHOLE: Final = b"LibvirtQemudSave"
PARTIAL: Final = b"LibvirtQemudPart"
FORMS: Final = ("raw", "gzip", "bzip2", "xz", "lzop", "zstd", "sparse")

_SIZE: Final = 92
_LARGEST_VERSION: Final = 0xFFFF
_XML_LIMIT: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class SaveImage:
    """What stands before the stream.

    Arguments:
        whole: libvirt had finished it.
        version: of the header.
        ran: the machine ran when it was saved.
        form: how the stream is stored; one of :data:`FORMS`.
        xml: the machine's definition.
    """

    whole: bool
    version: int
    ran: bool
    form: str
    xml: str

    def __str__(self) -> str:
        state = "" if self.whole else ", NOT FINISHED (LibvirtQemudPart): libvirt was interrupted, or failed"
        ran = "running" if self.ran else "paused"
        return f"libvirt save image, version {self.version}, of a {ran} machine, {self.form}{state}"


def read_image(source: Source, where: str) -> SaveImage:
    """Read a header and its XML; the source is then at the stream.

    Arguments:
        source: at the header.
        where: how to call it.

    Raises:
        UsageError: it ends within them, or states what cannot be.
    """
    raw = source.exactly(_SIZE)
    if len(raw) < _SIZE:
        raise UsageError(f"{where} is a libvirt save image that ends within its header, after {len(raw)} bytes")
    order = "<" if struct.unpack_from("<I", raw, 16)[0] <= _LARGEST_VERSION else ">"
    version, size, ran, form, cookie = struct.unpack_from(f"{order}5I", raw, 16)
    if not 0 < version <= _LARGEST_VERSION or size > _XML_LIMIT:
        raise UsageError(
            f"{where} is a libvirt save image with version {version} and {size} bytes of XML, which cannot be"
        )
    if form >= len(FORMS):
        raise UsageError(
            f"{where} is a libvirt save image whose stream is compressed in a way that is not known here (number "
            f"{form}; known are {', '.join(f'{n} {name}' for n, name in enumerate(FORMS))}): "
            f"tail -c +{_SIZE + size + 1} {where} | DECOMPRESSOR | migpool inspect -"
        )
    text = source.exactly(size)
    if len(text) < size:
        raise UsageError(f"{where} is a libvirt save image that ends within its XML, after {_SIZE + len(text)} bytes")
    end = cookie if 0 < cookie <= size else size
    xml = text[:end].partition(b"\0")[0].decode("utf-8", "replace")
    return SaveImage(raw.startswith(WHOLE), version, bool(ran), FORMS[form], xml)
