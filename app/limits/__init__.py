"""Rate limits: how often something may be done, in all processes together."""
