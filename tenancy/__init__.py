"""The tenancy library."""
