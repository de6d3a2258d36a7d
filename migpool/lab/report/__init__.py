"""What a reader sees of runs: tables, time line, page, traces."""
