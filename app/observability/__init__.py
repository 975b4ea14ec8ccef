"""What an operator sees of the running program: logs, metrics, health, traces. None of it changes an answer."""
