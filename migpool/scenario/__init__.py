"""The scenario file: its schema, its messages, the machine that is built from it, and the plug-ins it names."""
