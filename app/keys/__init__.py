"""The tenants' data keys: rotation, status, and their destruction."""
