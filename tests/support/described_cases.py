"""A state, its description and its bytes: tried in every direction."""

from __future__ import annotations

import json
from copy import deepcopy
from types import SimpleNamespace

import pytest

from migpool.device import DeviceError
from migpool.vmsd.description import Description
from migpool.vmsd.jsonform import section_structure


def there_and_back(description: Description, full: SimpleNamespace, data: str, empty: SimpleNamespace) -> None:
    """Save ``full``, load ``empty``, measure, cut at every byte, and read all by the JSON that says what was saved.

    Arguments:
        description: of the state.
        full: the state.
        data: its bytes, in hexadecimal digits.
        empty: what is loaded into, and measured with.
    """
    expected = bytes.fromhex(data)
    saved, entry = description.save_described(full)
    assert saved.hex(" ") == expected.hex(" ")
    assert description.save(full) == saved
    before = deepcopy(empty)
    assert description.measure(expected + b"\x7e", empty) == len(expected)
    for end in range(len(expected)):
        assert description.measure(expected[:end], empty) is None
        with pytest.raises(DeviceError, match="at byte"):
            description.load(deepcopy(empty), expected[:end])
    assert empty == before
    description.load(empty, expected)
    assert empty == full
    by_json = Description.from_structure(
        section_structure(json.loads(json.dumps({"name": "d", **entry})), description.version)
    )
    record: dict[str, object] = {}
    by_json.load(record, expected)
    assert by_json.save(record) == expected
    assert by_json.describe(record) == entry
