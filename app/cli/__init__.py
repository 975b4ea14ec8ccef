"""The command line: everything that an operator does at night, by `python -m app` or `flask --app app`."""
