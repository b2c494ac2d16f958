"""What goes into the executable or the test interpreter from our side: C shims, the entry point."""
