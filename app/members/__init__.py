"""Members: people in a tenant, and what each may do there."""
