"""PostgreSQL for tests, demos and development: found, or started from a wheel, and stopped when nobody is left.

Reading path: `sources` (which server) -> `launcher` (join or start) -> `cold_start` -> `guard` (stop).
`templates` clones databases.
"""

from tenancy.embedded.launcher import start
from tenancy.embedded.server import Server
from tenancy.embedded.sources import find_server
from tenancy.embedded.templates import Template, make_template

__all__ = ["Server", "Template", "find_server", "make_template", "start"]
