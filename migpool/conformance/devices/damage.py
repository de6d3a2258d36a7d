"""Checks that call a device directly, with what is damaged, missing or changed: the device or its fingerprint tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from migpool.conformance.check import Failure, NotApplicable
from migpool.conformance.devices.calling import Chunk, load_and_start, load_one, pairs_of, save, take_state
from migpool.conformance.devices.subject import Subject
from migpool.core.plugin_errors import place_of
from migpool.device import Device, DeviceError
from migpool.errors import BrokenDeviceError

NAME: Final = "fingerprint"
NONE: Final = "no fingerprint"
SAME: Final = "a fingerprint that is always the same"
"""Causes of several findings."""


def damaged_config(subject: Subject) -> str:
    """A config that is empty, cut, longer or changed is refused by a DeviceError, or taken; nothing else."""
    damages: dict[str, Callable[[bytes], bytes]] = {
        "an empty config": lambda _: b"",
        "a config cut in half": lambda config: config[: len(config) // 2],
        "a config with a byte too many": lambda config: config + b"\0",
        "a config with its first byte changed": lambda config: (
            bytes([config[0] ^ 0xFF]) + config[1:] if config else b""
        ),
    }
    refused = tried = 0
    for what, damage in damages.items():
        with pairs_of(subject) as pairs:
            for source, destination in pairs:
                saved = save(source)
                take_state(destination, saved)
                tried += 1
                refused += _refuses(what, lambda: destination.load_config(damage(saved.config)))  # noqa: B023
    return f"{refused} of {tried} refused"


def missing_state(subject: Subject) -> str:
    """A device that lacks its last chunk must say so, at the config or at its start; its state cannot be right."""
    with pairs_of(subject) as pairs:
        for source, destination in pairs:
            saved = save(source)
            if not saved.chunks:
                continue
            destination.load_setup(saved.setup)
            for chunk in saved.chunks[:-1]:
                load_one(destination, chunk.tag, memoryview(chunk.data))
            if not _refuses("a config before the last chunk", lambda: load_and_start(destination, saved.config)):  # noqa: B023
                ours, theirs = source.fingerprint(), destination.fingerprint()
                if ours is None or ours == theirs:
                    raise Failure(
                        f"{destination.idstr}: it started without its last chunk and did not notice: "
                        "check in load_config that all state has come, or give it a fingerprint"
                        f"{place_of(destination, 'load_config')}",
                        cause=NONE if ours is None else SAME,
                    )
                return "not refused, but its fingerprint tells"
            return "refused"
    raise NotApplicable("no device has state in chunks")


def fingerprints(subject: Subject) -> str:
    """A device with state has a fingerprint at both ends: else nobody can say that what arrived is what left."""
    with pairs_of(subject) as pairs:
        with_state = []
        for source, destination in pairs:
            saved = save(source)
            take_state(destination, saved)
            destination.load_config(saved.config)
            if saved.chunks or saved.config:
                with_state.append((source, destination))
        for _, destination in pairs:
            destination.wake()
        for _, destination in reversed(pairs):
            destination.start()
        without = [one for pair in with_state for one in pair if one.fingerprint() is None]
    if not without:
        return f"{len(with_state)} compared"
    names = ", ".join(dict.fromkeys(one.idstr for one in without))
    if subject.comparable and any(one.comparable for one in without):
        raise Failure(
            f"{names}: state and no fingerprint, so that no migration of it is ever verified: return one, or say that "
            f"there can be none (comparable = False in the class, --no-fingerprint here){place_of(without[0], NAME)}",
            cause=NONE,
        )
    return f"not compared: {names} can have none"


def changed_state(subject: Subject) -> str:
    """A chunk whose bytes were all changed on the way must be noticed, by the device or by its fingerprint."""
    refused = told = 0
    with pairs_of(subject) as pairs:
        for source, destination in pairs:
            saved = save(source)
            if not saved.chunks:
                continue
            at = len(saved.chunks) // 2
            changed = Chunk(saved.chunks[at].tag, bytes(byte ^ 0xFF for byte in saved.chunks[at].data))
            try:
                take_state(destination, saved._replace(chunks=[*saved.chunks[:at], changed, *saved.chunks[at + 1 :]]))
                load_and_start(destination, saved.config)
            except DeviceError:
                refused += 1
                continue
            ours, theirs = source.fingerprint(), destination.fingerprint()
            if (ours is None or theirs is None) and not (subject.comparable and destination.comparable):
                continue
            if ours is None or theirs is None:
                raise Failure(
                    f"{destination.idstr}: nobody noticed that chunk {at} had come changed, and it has no fingerprint: "
                    "nothing proves that what arrived is what left; return a digest of the state in fingerprint"
                    f"{place_of(destination, NAME)}",
                    cause=NONE,
                )
            _must_differ(ours, theirs, destination, f"chunk {at}")
            told += 1
    if not refused + told:
        raise NotApplicable("no device has state in chunks that can be compared")
    return f"{refused} refused it, {told} fingerprints told"


def changed_config(subject: Subject) -> str:
    """A config of which one half was changed on the way must be noticed, by the device or by its fingerprint."""
    refused = told = 0
    for half in range(2):
        with pairs_of(subject) as pairs:
            for source, destination in pairs:
                saved = save(source)
                take_state(destination, saved)
                middle = len(saved.config) // 2
                kept, changed = saved.config[:middle], saved.config[middle:]
                if half == 0:
                    kept, changed = changed, kept
                if not changed:
                    continue
                changed = bytes(byte ^ 0xFF for byte in changed)
                config = changed + kept if half == 0 else kept + changed
                if _refuses("a config changed on the way", lambda: destination.load_config(config)):  # noqa: B023
                    refused += 1
                    continue
                ours, theirs = source.fingerprint(), destination.fingerprint()
                if ours is None or theirs is None:
                    continue
                half_name = ("first", "second")[half]
                _must_differ(ours, theirs, destination, f"the {half_name} half of its config, {len(changed)} bytes,")
                told += 1
    if not refused + told:
        raise NotApplicable("no device has a config that can be compared")
    return f"{refused} refused it, {told} fingerprints told"


def _must_differ(ours: bytes, theirs: bytes, destination: Device, what: str) -> None:
    """Raise a :class:`Failure` if the fingerprints do not tell that something had come changed."""
    if ours == theirs:
        raise Failure(
            f"{destination.idstr}: {what} had come changed, and its fingerprint is the source's all the same: make it "
            f"a digest of all the state, the config's too{place_of(destination, NAME)}",
            cause=SAME,
        )


def _refuses(what: str, call: Callable[[], None]) -> bool:
    try:
        call()
    except BrokenDeviceError as error:
        raise Failure(f"{what}: {error}") from error.__cause__
    except DeviceError:
        return True
    return False
