"""What holds for the whole process while migrations need it."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest

from migpool.core.held_settings import no_garbage_collection, short_switch_interval


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    enabled, interval = gc.isenabled(), sys.getswitchinterval()
    yield
    sys.setswitchinterval(interval)
    (gc.enable if enabled else gc.disable)()


def test_the_last_of_several_users_puts_it_back() -> None:
    gc.enable()
    one, other = no_garbage_collection(), no_garbage_collection()
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    assert not gc.isenabled()
    other.__exit__(None, None, None)
    assert gc.isenabled()


def test_who_collects_no_garbage_anyway_does_not_begin_to() -> None:
    gc.disable()
    with no_garbage_collection():
        assert not gc.isenabled()
    assert not gc.isenabled()


def test_an_error_puts_it_back() -> None:
    gc.enable()
    with pytest.raises(KeyError), no_garbage_collection():
        raise KeyError
    assert gc.isenabled()


def test_a_switch_interval_is_never_made_longer() -> None:
    sys.setswitchinterval(1e-3)
    with short_switch_interval(1e-4):
        assert sys.getswitchinterval() == pytest.approx(1e-4)
        with short_switch_interval(1e-5):
            assert sys.getswitchinterval() == pytest.approx(1e-4), "the first one's holds"
    with short_switch_interval(1.0), short_switch_interval(0):
        assert sys.getswitchinterval() == pytest.approx(1e-3)
    assert sys.getswitchinterval() == pytest.approx(1e-3)
