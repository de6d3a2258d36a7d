"""QEMU's tracepoints that are read, and the form of what each says in a line of the trace log."""

from __future__ import annotations

import re
from typing import Final

_NAME = r"\((?P<name>.*)\)"
_CHANNEL = r"(?:channel|id|iter) (?P<channel>\d+)"
_PACKET = (
    rf"{_CHANNEL} packet_num (?P<packet>\d+) (?:.* )?flags (?P<flags>0x[0-9a-f]+) (?:next packet size (?P<size>\d+))?.*"
)
_DOWNTIME = r"type=(?P<type>[a-z-]+) idstr=(?P<idstr>.*) instance_id=(?P<instance>\d+) downtime=(?P<took>\d+)"
_FORMS: Final = {
    "vmstate_downtime_checkpoint": r"(?P<point>\S+)",
    "vmstate_downtime_save": _DOWNTIME,
    "vmstate_downtime_load": _DOWNTIME,
    "migration_bitmap_sync_start": r"",
    "migration_bitmap_sync_end": r"dirty_pages (?P<pages>\d+)",
    "migration_return_path_end_before": r"",
    "multifd_send_sync_main_signal": _CHANNEL,
    "multifd_send_sync_main_wait": _CHANNEL,
    "multifd_send_sync_main": r"packet num (?P<packet>\d+)",
    "multifd_send_fill": _PACKET,
    "multifd_recv_unfill": _PACKET,
    "multifd_recv_sync_main_wait": _CHANNEL,
    "multifd_recv_sync_main": r"packet num (?P<packet>\d+)",
    "qemu_loadvm_state_section": r"(?P<kind>\d+)",
    "qemu_loadvm_state_section_startfull": r"(?P<id>\d+)\((?P<idstr>.*)\) (?P<instance>\d+) \d+",
    "qemu_loadvm_state_section_partend": r"(?P<id>\d+)",
    "qemu_loadvm_state_post_main": r".*",
    "loadvm_process_command": r"com=(?P<command>\w+) .*",
    "loadvm_process_command_ping": r"(?P<value>0x[0-9a-f]+)",
    "source_return_path_thread_pong": r"(?P<value>0x[0-9a-f]+)",
    "source_return_path_thread_shut": r".*",
    "migrate_send_rp_message": r"(?P<message>\d+): len \d+",
    "flatview_new": r".*",
    **dict.fromkeys(
        (
            "savevm_section_start",
            "savevm_section_end",
            "savevm_section_skip",
            "vmstate_save",
            "vmstate_load",
            "multifd_recv_sync_main_signal",
            "vfio_get_dirty_bitmap",
            "vfio_listener_region_add_ram",
            "vfio_listener_region_del",
            "vfio_vmstate_change",
            "vfio_vmstate_change_prepare",
        ),
        r".*",  # only counted: a line takes time to be written
    ),
    "vfio_migration_set_state": rf"{_NAME} (?:new )?state (?P<state>\w+).*",
    "vfio_migration_set_device_state": rf"{_NAME} state (?P<state>\w+)",
    "vfio_save_complete_precopy_start": _NAME,
    "vfio_save_complete_precopy": rf"{_NAME}.*",
    "vfio_save_complete_precopy_thread_start": rf"{_NAME} idstr (?P<idstr>.*) instance (?P<instance>\d+)",
    "vfio_save_complete_precopy_thread_end": rf"{_NAME} .*",
    "vfio_save_device_config_state": _NAME,
    "vfio_save_block": rf"{_NAME} data_size (?P<size>\d+)",
    "vfio_load_state": rf"{_NAME} .*",
    "vfio_load_state_device_data": rf"{_NAME} .*",
    "vfio_load_bufs_thread_start": _NAME,
    "vfio_load_bufs_thread_end": _NAME,
    "vfio_load_state_device_buffer_incoming": rf"{_NAME} idx (?P<index>\d+)",
    "vfio_load_state_device_buffer_starved": rf"{_NAME} idx (?P<index>\d+)",
    "vfio_load_state_device_buffer_load_start": rf"{_NAME} idx (?P<index>\d+)",
    "vfio_load_state_device_buffer_load_end": rf"{_NAME} idx (?P<index>\d+)",
    "vfio_load_device_config_state_start": _NAME,
    "vfio_load_device_config_state_end": _NAME,
}
OLDER: Final = {"multifd_send": "multifd_send_fill", "multifd_recv": "multifd_recv_unfill"}
"""What QEMU called an event before 10.0."""
_COMPILED = {event: re.compile(form) for event, form in _FORMS.items()}
FORMS: Final = _COMPILED | {older: _COMPILED[event] for older, event in OLDER.items()}
"""The events that are needed, and what they say."""
