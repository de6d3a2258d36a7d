"""What is saved while the machine still runs: rounds, and the turn of each device in one."""
