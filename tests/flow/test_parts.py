"""Parts with tags: any order of arrival, the config among them, and whatever must not come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migpool.errors import DeviceError
from migpool.flow.parts import Parts

PLENTY = 1 << 20


@given(st.data())
def test_every_part_comes_out_once_and_the_end_is_known(data: st.DataObject) -> None:
    tags = data.draw(st.lists(st.integers(0, 2**32 - 1), unique=True, max_size=8))
    order = data.draw(st.permutations([*tags, None]))
    parts: Parts[int | None] = Parts()
    taken: list[int | None] = []
    for come, tag in enumerate(order):
        assert not parts.exhausted
        parts.put(len(tags) if tag is None else tag, -1 if tag is None else tag, tag is None, PLENTY)
        assert parts.received == come + 1
        if data.draw(st.booleans()):
            taken.append(parts.take())
    assert parts.complete
    assert parts.missing() == ""
    while (part := parts.take()) is not None:
        taken.append(part)
    assert [part for part in taken if part is not None] == [tag for tag in order if tag is not None]
    assert parts.exhausted
    assert parts.config == -1


@pytest.mark.parametrize(
    ("coming", "words"),
    [
        ([(4, False), (4, False)], "the part with the tag 4 has come twice"),
        ([(1, True), (1, True)], "its config has come twice"),
        ([(1, True), (7, False), (8, False)], "2 parts came, of 1"),
        ([(7, False), (8, False), (1, True)], "2 parts came, of 1"),
    ],
)
def test_what_must_not_come_is_told_by_its_tag(coming: list[tuple[int, bool]], words: str) -> None:
    parts: Parts[bool] = Parts()
    *before, (last_tag, last) = coming
    for tag, config in before:
        parts.put(tag, config, config, PLENTY)
    with pytest.raises(DeviceError, match=words):
        parts.put(last_tag, last, last, PLENTY)


def test_a_part_beyond_the_room_that_was_granted_is_refused() -> None:
    parts: Parts[bool] = Parts()
    parts.put(9, False, False, 1)
    with pytest.raises(DeviceError, match="room granted for 1 part: it"):
        parts.put(3, False, False, 1)


def test_what_has_not_come_is_counted() -> None:
    parts: Parts[bool] = Parts()
    parts.put(9, False, False, PLENTY)
    assert "its config has not come" in parts.missing()
    parts.put(3, True, True, PLENTY)
    assert parts.missing() == "2 of 3 parts did not come"
