"""What a migration is made of: effects, jobs, the interpreter, the machine, buffers, spans, threads."""
