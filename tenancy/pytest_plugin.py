"""The pytest plugin: the generated isolation suite, its fixtures and its evidence."""
