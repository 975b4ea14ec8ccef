"""The admin API: what platform staff and their programs do to tenants. Each noun has its own module of routes."""
