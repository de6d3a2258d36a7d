"""A file a command or a pair of them, and none is imported before its command is called; see ``migpool.cli.lazy``."""
