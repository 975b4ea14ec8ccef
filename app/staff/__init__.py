"""Platform staff: the people, and the keys of programs, that run the service."""
