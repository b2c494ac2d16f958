"""The whole system on one machine, for looking at: what `make run` starts."""
