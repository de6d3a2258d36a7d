"""The interface for device authors. Nothing else of migpool is needed to write a plug-in.

A **device** is one thing of the machine that has state to move. The same class serves both sides; migpool calls one
half of it at the source and the other half at the destination. All methods are plain and may block where their
docstring says so.

The order of calls, and the thread they come from::

    source                                          thread
      save_setup()                                  the migration's
      pending(), iterate(buffer) ...                the migration's       only if it is iterable; the machine runs
      quiesce()                                     the migration's       the downtime begins
      stop()                                        the migration's       every device is quiet
      save_state(buffer) ... until it returns 0     the model's choice    only if it is iterable
      needed()                                      as save_config        only if it is optional; save_lock held
      save_config()                                 the model's choice    save_lock held
      wake(), resume()                              the migration's       only after a failure or cancel
      close()                                       the migration's       always, last

    destination
      load_setup(data)                              the migration's
      load_state(data) ... in the order of saving   the model's choice    only if it is iterable
      load_config(data)                             the model's choice    load_lock held
      wake()                                        the migration's       every device is loaded
      start()                                       the migration's       every device is awake: the machine runs
      close()                                       the migration's       always, last

"The model's choice" means: any thread, but never two at once for one device, and always in this order; what one call
wrote, the next one sees, whichever thread it runs on. ``abort()`` alone may come at any time from any other thread.

An **iterable** device has much state: it is read in chunks and travels over the multifd channels, outside the main
channel, while other devices do the same. A device that is not iterable has only its config; it crosses on the main
channel, as one section, or over the multifd channels (``config_channel``). Its section is where its ``priority`` says;
one that is ``early`` comes before everything else, while the machine runs, and one that is ``optional`` may have none.

A config is saved and loaded under the **big lock**, as in QEMU, unless the device declares that it needs less
(``save_lock``, ``load_lock``). One that declares too little is found by ``migpool conformance``, which holds one config
at each line of its call while another is saved or loaded.

A :class:`TaggedDevice` is an iterable one whose state comes as parts with tags: they need no order, and several threads
save and load them at once.

The guest's **memory** is a :class:`MemoryDevice`, one a machine: its pages travel over the multifd channels while the
machine runs, those that it writes meanwhile once more, and the last ones after it has stopped.

A plug-in is found by its entry point in the group ``migpool.devices``: a function (or class) that takes a
:class:`DeviceContext` and returns the devices to migrate::

    def devices(context: DeviceContext) -> list[Device]: ...

Its docstring's first line is what ``migpool plugins`` shows, and what is called ``OPTIONS`` beside it, an
:class:`Options`, what ``migpool plugins NAME`` does. A function ``outlines`` beside it says what the devices would be
without making them (:class:`Outline`): then they can be simulated.

All names are imported from here. Within, ``device.py`` has the class, ``memory.py`` the memory's, ``tagged.py`` that of
devices with tags, ``figures.py`` what a device says of itself in numbers, ``plugin.py`` the entry point's side, and
``options.py`` a scenario's options.
"""

from __future__ import annotations

from migpool.device.device import ConfigChannel, ConfigLock, Device, Priority
from migpool.device.figures import Pending, StateCosts
from migpool.device.memory import MemoryBlock, MemoryDevice
from migpool.device.options import GivenOptions, Option, Options
from migpool.device.plugin import DeviceContext, DevicePlugin, OptionValue, Outline, Side
from migpool.device.tagged import Part, TaggedDevice
from migpool.errors import DeviceBusy, DeviceError, VerificationError

__all__ = [
    "ConfigChannel",
    "ConfigLock",
    "Device",
    "DeviceBusy",
    "DeviceContext",
    "DeviceError",
    "DevicePlugin",
    "GivenOptions",
    "MemoryBlock",
    "MemoryDevice",
    "Option",
    "OptionValue",
    "Options",
    "Outline",
    "Part",
    "Pending",
    "Priority",
    "Side",
    "StateCosts",
    "TaggedDevice",
    "VerificationError",
]
