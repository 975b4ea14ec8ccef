"""Usage: what tenants have and do, counted against what they may, and kept for reading."""
