"""The command line: arguments, subcommands, status rendering."""
