"""The kits: for authors of devices, in ``devices``, and for authors of threading models, in ``models``."""
