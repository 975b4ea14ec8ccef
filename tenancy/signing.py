"""Signed mode: the scope of a transaction carries a signature, which the policies verify."""
