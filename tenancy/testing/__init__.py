"""The test kit: what is generated from the metadata, run against a real server, and shown as evidence."""
