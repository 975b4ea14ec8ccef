"""The audit: who did what, in which tenant and why; added to, never changed."""
