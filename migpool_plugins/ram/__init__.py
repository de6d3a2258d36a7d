"""Guest memory: a mapping of this process that a VM sees as its own, and the log of which of its pages are written.

``memory.py`` is the mapping and the device that migrates, ``kvm_logs.py`` and ``hook_log.py`` the ways to know what has
been written. The plug-in ``guest`` puts vCPUs to it.
"""
