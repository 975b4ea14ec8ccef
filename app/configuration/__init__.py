"""Configuration: the keys a tenant's settings have, their values, and who changed them."""
