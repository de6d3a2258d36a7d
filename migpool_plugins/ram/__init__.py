"""Guest memory: memory of this process that a VM sees as its own, and the log of which of its pages are written.

``memory.py`` is the device that migrates, ``logs.py`` the ways to know what has been written. The plug-in ``guest``
puts vCPUs to it.
"""
