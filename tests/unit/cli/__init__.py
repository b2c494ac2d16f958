"""The command line: arguments, help, status text, exit statuses."""
