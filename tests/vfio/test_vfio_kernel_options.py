"""The options of a vfio entry whose devices are the host's own, and what is said of wrong ones."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from migpool.device import DeviceContext, DeviceError, OptionValue, Side
from migpool_plugins.vfio import devices

ABSENT = "ffff:ff:1f.7"


def said(options: Mapping[str, OptionValue], count: int = 1, side: Side = "source") -> str:
    with pytest.raises(DeviceError) as caught:
        devices(DeviceContext(side, {"backend": "kernel", **options}, count))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": "1MiB"}, 'vfio option size is unknown to backend "kernel": use backend, bus, device, '),
        ({"bus": 0}, "vfio option bus is 0: use a whole number from 1 to 255"),
        ({"bus": True}, "vfio option bus is True: "),
        ({"precopy": "no"}, "vfio option precopy is 'no': use true or false"),
        ({"time_limit": 0}, "vfio option time_limit is 0: use seconds over 0"),
        ({"time_limit": "1h"}, "vfio option time_limit is '1h': "),
        ({}, "vfio option device is None: use a device, such as "),
        ({"device": 7}, "vfio option device is 7: use a device"),
        ({"device": [1]}, "vfio option device is [1]: use a device"),
        ({"device": {"source": ABSENT}}, "vfio option device is {'source': 'ffff:ff:1f.7'}: use a table with "),
        ({"device": ["a", "b"]}, "vfio option device has 2 for 1 device: give a list, one for each"),
        ({"device": ABSENT, "way": "vfio-user"}, 'vfio option way is \'vfio-user\': use "group" or "iommufd"'),
        ({"device": ABSENT}, f"there is no device {ABSENT}: "),
        ({"device": "eth0"}, "'eth0' names no device: "),
    ],
)
def test_what_is_wrong_is_named(options: dict[str, OptionValue], words: str) -> None:
    assert said(options).startswith(words)


def test_both_ends_may_be_on_one_host() -> None:
    ends: OptionValue = {"source": "0000:aa:00.1", "destination": ["0000:bb:00.1"]}
    assert "no device 0000:aa:00.1" in said({"device": ends})
    assert "no device 0000:bb:00.1" in said({"device": ends}, side="destination")
    assert said({"device": ends}, 2, "destination").startswith("vfio option device.destination has 1 for 2 devices")
