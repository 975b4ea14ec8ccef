"""The doctor: examines a database, its models and the code around them, and reports what opens a hole."""
