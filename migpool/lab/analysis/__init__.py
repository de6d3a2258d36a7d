"""Why a downtime was what it was: spans, critical path, lower bound, and replays without a resource."""
