"""Tenants, as platform staff see them."""

from __future__ import annotations
