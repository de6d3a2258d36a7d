"""What is done with a VFIO device after a request to it failed, and the words that tell of it.

The order is that of careful users of the kernel's interface: ask where the device is, since a request over several arcs
may have come half-way; try the state that the failed call would have it recover to; and only then reset it, which loses
its state but leaves ERROR too.
"""

from __future__ import annotations

from dataclasses import dataclass

from migpool_plugins.vfio.backend import Backend, BackendError
from migpool_plugins.vfio.migration import MigrationState

__all__ = ["Recovery", "recover"]


@dataclass(frozen=True, slots=True)
class Recovery:
    """What came of it.

    Arguments:
        words: one line; may be empty.
        reached: whether the device answered anything at all.
    """

    words: str
    reached: bool


def recover(backend: Backend, target: MigrationState | None, because: BackendError | None = None) -> Recovery:
    """Bring a device that failed back to a state in which it can be left.

    Never raises: a device that cannot be recovered is said to be so.

    Arguments:
        backend: the device.
        target: the state to try first; ``None`` resets at once, where what has been loaded must not be used.
        because: the failure; a device that answers every request with the same words is not reported twice.

    Returns:
        What was found and done; no words if there is nothing to tell that ``because`` has not told.
    """
    said: list[str] = []
    state: MigrationState | None = None
    try:
        state = backend.state()
    except BackendError as error:
        if because is not None and str(error) == str(because):
            return Recovery("", reached=False)
        said.append(f"its state cannot be asked ({error})")
    if state is not None:
        if state is target:
            return Recovery(f"the device is in {state.name}", reached=True)
        said.append(f"the device was in {state.name}")
        if target is not None and state is not MigrationState.ERROR:
            try:
                backend.set_state(target)
            except BackendError as error:
                said.append(f"{target.name} was refused ({error})")
            else:
                return Recovery(f"{said[0]} and went to {target.name}", reached=True)
    try:
        backend.reset()
    except BackendError as error:
        said.append(f"a reset failed too ({error})")
    else:
        said.append("it was reset")
        return Recovery(", ".join(said), reached=True)
    return Recovery(", ".join(said), reached=state is not None)
