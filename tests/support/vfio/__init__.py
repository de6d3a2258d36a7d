"""VFIO devices for the tests: a made host and kernel driver, and the bytes of both ends of vfio-user."""
