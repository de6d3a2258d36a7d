"""A save image of libvirt's, made for the tests."""

from __future__ import annotations

import struct

XML = "<domain type='kvm'><name>guest</name></domain>"


def image(
    form: int, data: bytes, *, magic: bytes = b"LibvirtQemudSave", order: str = "<", cookie: bytes = b""
) -> bytes:
    """libvirt's save image, as it writes it on a host of this byte order."""
    text = XML.encode() + b"\0"
    at = len(text) if cookie else 0
    return magic + struct.pack(f"{order}5I", 2, len(text) + len(cookie), 1, form, at) + bytes(56) + text + cookie + data
