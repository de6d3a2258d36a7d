"""A device for the tests that warns, in one way and in another, while it migrates as it should."""

from __future__ import annotations

import logging
import warnings

from migpool.device import Device, DeviceContext
from tests.support.holding_device import HoldingDevice


def devices(context: DeviceContext) -> list[Device]:
    """Warn at both sides."""
    held_nowhere = {"hold": "", "side": "", "fifo": ""}
    return [WarningDevice(DeviceContext(context.side, held_nowhere, context.count))]


class WarningDevice(HoldingDevice):
    """Warns when its config is saved and when it is loaded."""

    def save_config(self) -> bytes:
        warnings.warn("the firmware is old", stacklevel=1)
        logging.getLogger("driver").warning("the link trained\nslowly")
        return super().save_config()

    def load_config(self, data: bytes) -> None:
        logging.getLogger("driver").error("a page was slow")
        for _ in range(3):
            logging.getLogger("driver").warning("the link trained\nslowly")
        super().load_config(data)
