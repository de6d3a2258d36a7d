"""What a device's methods may return: each check gives the value back, or raises the error that says what came."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from migpool.core.plugin_errors import Owner, defined_at, wrong
from migpool.device import Part, Pending, StateCosts
from migpool.errors import DeviceError

MAX_U32: Final = (1 << 32) - 1
MOST: Final = (1 << 63) - 1
"""Bytes: what a device may say that it still has to save."""


def filled(owner: Owner, method: str, came: object, room: int) -> int:
    """How many bytes of a buffer of ``room`` bytes were filled."""
    length = _whole(came)
    if length is None or not 0 <= length <= room:
        raise wrong(owner, method, came, f"the number of bytes that it filled of a buffer of {room}")
    return length


def content(owner: Owner, method: str, came: object) -> bytes:
    """Bytes, which may have come as another kind of buffer."""
    if isinstance(came, bytes):
        return came
    if isinstance(came, bytearray | memoryview):
        return bytes(came)
    raise wrong(owner, method, came, "bytes")


def digest(owner: Owner, method: str, came: object) -> bytes | None:
    """Bytes, or ``None``."""
    return None if came is None else content(owner, method, came)


def pending(owner: Owner, method: str, came: object) -> Pending:
    """Sizes that make sense."""
    if not isinstance(came, Pending):
        raise wrong(owner, method, came, "a Pending")
    sizes = (came.precopy, came.stopcopy, came.initial)
    if any((size := _whole(each)) is None or not 0 <= size <= MOST for each in sizes):
        raise wrong(owner, method, came, f"a Pending of whole numbers of bytes, 0 to {MOST}")
    if came.initial > came.precopy:
        raise wrong(owner, method, came, "as initial a part of precopy, and so not more than that")
    return came


def part(owner: Owner, method: str, came: object, room: int) -> Part | None:
    """A part with a tag that the stream can carry, or ``None``."""
    if came is None:
        return None
    if isinstance(came, Part):
        tag, length = _whole(came.tag), _whole(came.length)
        if tag is not None and length is not None and 0 <= tag <= MAX_U32 and 0 < length <= room:
            return came
    raise wrong(owner, method, came, f"None, or a Part with a tag of 32 bits and a length of 1 to {room} bytes")


def truth(owner: Owner, method: str, came: object) -> bool:
    """True or false."""
    if not isinstance(came, bool):
        raise wrong(owner, method, came, "True or False")
    return came


def descriptor(owner: Owner, method: str, came: object) -> int | None:
    """A descriptor, or ``None``."""
    if came is not None and ((number := _whole(came)) is None or number < 0):
        raise wrong(owner, method, came, "an open descriptor, or None")
    return came if isinstance(came, int) else None


def measured(owner: Owner, method: str, came: object) -> int | None:
    """A length, or ``None``."""
    if came is not None and ((length := _whole(came)) is None or length < 0):
        raise wrong(owner, method, came, "a number of bytes, or None")
    return came if isinstance(came, int) else None


def description(owner: Owner, method: str, came: object) -> Mapping[str, object] | None:
    """A mapping of text, or ``None``."""
    if came is None or (isinstance(came, Mapping) and all(isinstance(key, str) for key in came)):
        return came
    raise wrong(owner, method, came, "a dictionary, or None")


def costs(owner: Owner, method: str, came: object) -> StateCosts | None:
    """Times that make sense, or ``None``."""
    if came is None:
        return None
    times = () if not isinstance(came, StateCosts) else _times(came)
    if not times or not all(isinstance(one, int | float) and 0 <= one < float("inf") for one in times):
        raise wrong(owner, method, came, "None, or a StateCosts of seconds of 0 or more")
    assert isinstance(came, StateCosts)
    return came


def _times(of: StateCosts) -> tuple[object, ...]:
    return (of.stop, of.read, of.write_chunk, of.write, of.save_config, of.load_config)


def _whole(value: object) -> int | None:
    """A whole number, of whatever class has one; ``None`` for anything else, and for truth values."""
    if isinstance(value, bool):
        return None
    try:
        return value.__index__()  # type: ignore[no-any-return, attr-defined]
    except Exception:  # noqa: BLE001 -- a plug-in's class
        return None


RETURNS: Final[Mapping[str, Callable[..., object]]] = {
    "save_setup": content,
    "pending": pending,
    "iterate": filled,
    "save_state": filled,
    "save_part": part,
    "save_config": content,
    "fingerprint": digest,
    "exact_config": truth,
    "needed": truth,
    "measure_config": measured,
    "describe_config": description,
    "poll_fd": descriptor,
    "splice_fd": descriptor,
    "costs": costs,
}
"""By method, what checks what it returned; those that fill a buffer are told its size, too."""


# ------------------------------------------------------------------ attributes

_WORDS: Final = {"instance_id": "instance id"}
_LOCKS: Final = ("big", "own", "none")
_CHANNELS: Final = (None, "main-channel", "multifd")


def attributes(device: Any, plugin: str) -> None:
    """Check what a device says of itself besides its methods.

    Arguments:
        device: a device.
        plugin: the plug-in that made it; may be empty.

    Raises:
        DeviceError: an attribute cannot be read.
        ValueError: one is not what it may be; the text says which, what it is and what is allowed.
    """
    for name, allowed, right in _ALLOWED:
        try:
            value = getattr(device, name)
            fits = allowed(value)
        except Exception as error:
            what = f"has a {name} that cannot be read: {type(error).__name__}: {error}"
            raise DeviceError(f"{what}{_made_by(device, plugin)}") from error
        if not fits:
            what = f"has the {_WORDS.get(name, name)} {value!r:.60}: {right}"
            raise ValueError(f"{what}{_made_by(device, plugin)}")


def _made_by(device: object, plugin: str) -> str:
    # Only for an error: to find the top of its package takes longer than all else that is asked here.
    where = ", ".join(filter(None, (plugin and f"plug-in {plugin}", defined_at(type(device)))))
    return where and f" ({where})"


def _text(value: object) -> bool:
    return isinstance(value, str)


def _u32(value: object) -> bool:
    number = _whole(value)
    return number is not None and 0 <= number <= MAX_U32


_ALLOWED: Final[tuple[tuple[str, Callable[[Any], bool], str], ...]] = (
    ("idstr", lambda it: _text(it) and 0 < len(it) < 256 and it.isascii(), "give it 1 to 255 ASCII characters"),
    ("instance_id", _u32, "it must fit in 32 bits"),
    ("version", _u32, "it must fit in 32 bits"),
    ("iterable", lambda it: isinstance(it, bool), "it is True or False"),
    ("in_flight", lambda it: it is None or (_u32(it) and it > 0), "it is None, or 1 or more jobs"),
    ("early", lambda it: isinstance(it, bool), "it is True or False"),
    ("optional", lambda it: isinstance(it, bool), "it is True or False"),
    ("priority", lambda it: isinstance(it, int), "it is a Priority, or another whole number"),
    ("config_job", lambda it: isinstance(it, bool), "it is True or False"),
    ("config_channel", lambda it: it in _CHANNELS, "it is None, 'main-channel' or 'multifd'"),
    ("save_lock", lambda it: it in _LOCKS, "it is 'big', 'own' or 'none'"),
    ("load_lock", lambda it: it in _LOCKS, "it is 'big', 'own' or 'none'"),
    ("after", lambda it: not _text(it) and all(map(_text, it)), "it is a sequence of devices' names"),
    ("note", _text, "it is text"),
    ("remark", _text, "it is text"),
    ("comparable", lambda it: isinstance(it, bool), "it is True or False"),
    ("peer_to_peer", lambda it: it is None or isinstance(it, bool), "it is None, True or False"),
)
