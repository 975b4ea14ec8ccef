"""Impersonation: staff acting as a member, for a reason and a time, where the customer can see it."""
