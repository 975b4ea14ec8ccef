"""Figures over all tenants."""

from __future__ import annotations
