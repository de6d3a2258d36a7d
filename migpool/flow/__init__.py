"""Order and room, as pure state machines: chunks put in order again, credits granted."""
