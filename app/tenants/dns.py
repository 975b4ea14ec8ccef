"""Reading TXT records: what the DNS says, and whether it said anything at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

_LIFETIME_S = 5.0


class DnsSilentError(Exception):
    """The DNS gave no answer, which says nothing about the records: the check counts neither way."""


class Texts(Protocol):
    """Reads the TXT records of a name."""

    def of(self, name: str) -> Sequence[str]:
        """Return every TXT record of the name, each joined from its parts; none if there is no such name.

        Raises: DnsSilentError - nobody answered, or what they answered is broken.
        """
        ...


class SystemTexts:
    """Asks the resolvers this machine is set up with, or those given.

    nameservers: addresses; empty reads the machine's configuration at the first question.
    """

    def __init__(self, nameservers: Sequence[str] = (), *, port: int = 53, lifetime_s: float = _LIFETIME_S) -> None:
        self._nameservers = tuple(nameservers)
        self._port = port
        self._lifetime_s = lifetime_s

    def of(self, name: str) -> Sequence[str]:
        import dns.exception  # not at the top: what needs no DNS starts faster without it
        import dns.resolver

        try:
            resolver = dns.resolver.Resolver(configure=not self._nameservers)
            if self._nameservers:
                resolver.nameservers = list(self._nameservers)
                resolver.port = self._port
            answer = resolver.resolve(f"{name}.", "TXT", lifetime=self._lifetime_s, search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return []
        except (dns.exception.DNSException, OSError) as error:
            raise DnsSilentError(type(error).__name__) from error
        return [b"".join(record.strings).decode("utf-8", "replace") for record in answer]
