"""A file a command, and none is imported before its command is called; see ``migpool.cli.lazy``."""
