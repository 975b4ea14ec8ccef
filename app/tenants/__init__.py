"""Tenants: the registry of customer organisations, and the domains they bring."""
