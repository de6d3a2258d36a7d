"""What somebody else may have made: files that are read up to a limit, text that does nothing when it is shown."""
