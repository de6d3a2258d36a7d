"""A running machine into a file, and out of it again: QEMU's stream, by the jobs of a migration."""
