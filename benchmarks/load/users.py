"""Who uses the application: what each does, and what is checked in every answer."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp

from benchmarks.load.subject import A_MARKER, PASSWORD, Place

SIGN_IN, LIST, CREATE, PAGE, SEARCH = "sign in", "list people", "create person", "open a page", "search in vain"
OPERATIONS = (SIGN_IN, LIST, CREATE, PAGE)
_CSRF = re.compile(rb'name="csrf_token"[^>]*value="([^"]+)"')
_TIMEOUT = aiohttp.ClientTimeout(total=30)


@dataclass
class Tally:
    """What was seen in one stretch of a run. times_s: by operation and tenant, of answers that were as expected."""

    times_s: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    errors: Counter[tuple[str, str]] = field(default_factory=Counter)  # by tenant, and what was wrong
    refusals: Counter[str] = field(default_factory=Counter)  # 429, by tenant
    foreign: list[str] = field(default_factory=list)
    checked: int = 0
    seconds: float = 0.0

    def of(self, *operations: str, tenants: Callable[[str], bool] = lambda _name: True) -> list[float]:
        """Return the times of these operations (of all, when none is named) in the tenants asked for."""
        return [
            time_s
            for (operation, tenant), times in self.times_s.items()
            if (not operations or operation in operations) and tenants(tenant)
            for time_s in times
        ]

    def errors_of(self, tenants: Callable[[str], bool]) -> int:
        return sum(count for (tenant, _), count in self.errors.items() if tenants(tenant))


class Crowd:
    """All users, and the one tally that they write to at a time."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self.http = http
        self.port = 0
        self.tally = Tally()

    async def ask(
        self,
        operation: str | None,
        place: Place,
        method: str,
        path: str,
        *,
        expected: int,
        marked: bool = True,
        **options: object,
    ) -> tuple[int, bytes, aiohttp.ClientResponse | None]:
        """Send one request and check its answer. operation: None for one that is not counted.

        marked: the answer must show the tenant's marker. No answer may show another's.
        """
        tally = self.tally  # an answer counts where it was asked for, however late it comes
        headers = {"Host": place.host, **options.pop("headers", {})}  # type: ignore[dict-item]  # options are any
        began = time.perf_counter()
        try:
            async with self.http.request(
                method, f"http://127.0.0.1:{self.port}{path}", headers=headers, allow_redirects=False, **options
            ) as response:  # type: ignore[arg-type]  # options are any
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            tally.errors[place.name, type(error).__name__] += 1
            return 0, b"", None
        took_s = time.perf_counter() - began
        whole = b"\n".join([body, *(value for _, value in response.raw_headers)])
        self.judge(tally, place, response.status, whole, operation=operation, expected=expected, marked=marked)
        if response.status == expected and operation is not None:
            tally.times_s[operation, place.name].append(took_s)
        return response.status, body, response

    def judge(
        self,
        tally: Tally,
        place: Place,
        status: int,
        answer: bytes,
        *,
        operation: str | None,
        expected: int,
        marked: bool,
    ) -> None:
        """Note what is wrong with an answer. marked: the tenant's own marker has to be in it."""
        own = place.marker.encode()
        found = set(A_MARKER.findall(answer))
        tally.checked += 1
        if found - {own}:
            tally.foreign.append(f"{operation} of {place.name} shows {len(found - {own})} other tenants")
        if status == 429:
            tally.refusals[place.name] += 1
        elif status != expected:
            tally.errors[place.name, f"{operation}: {status}"] += 1
        elif marked and own not in found:
            tally.errors[place.name, f"{operation}: nothing of its own"] += 1


class User:
    """Somebody with an account in one tenant, who thinks between two requests. Every second one uses a browser."""

    def __init__(self, crowd: Crowd, place: Place, number: int, *, think_s: float) -> None:
        self.crowd, self.place = crowd, place
        self.email = place.emails[number]
        self.has_browser = number % 2 == 1
        self._think_s = think_s
        self._chosen = random.Random(f"{place.name} {number}")
        self._headers: dict[str, str] = {}
        self._made = 0

    async def stay(self, arrives_s: float) -> None:
        """Arrive, sign in, and go on until cancelled."""
        await asyncio.sleep(arrives_s)
        await self.sign_in()
        while True:
            await asyncio.sleep(self._chosen.expovariate(1 / self._think_s))
            await self.act()

    async def act(self) -> None:
        """Do one thing; signing in anew is one in twenty, creating somebody one in five."""
        lot = self._chosen.random()
        if lot < 0.05 or not self._headers:
            await self.sign_in()
        elif self.has_browser:
            await self._ask(PAGE, "GET", self._chosen.choice(["/people", "/companies", "/people?q=person+7"]), 200)
        elif lot < 0.25:
            self._made += 1
            name = f"{self.place.marker} {self.email.partition('@')[0]} made {self._made}"
            await self._ask(CREATE, "POST", "/api/v1/people", 201, json={"name": name})
        else:
            await self._ask(
                LIST, "GET", f"/api/v1/people?limit=25&sort={self._chosen.choice(['name', '-created_at'])}", 200
            )

    async def _ask(self, operation: str, method: str, path: str, expected: int, **options: object) -> None:
        status, _, _ = await self.crowd.ask(
            operation, self.place, method, path, expected=expected, headers=self._headers, **options
        )
        if status in (401, 303):
            self._headers = {}

    async def sign_in(self) -> None:
        self._headers = await (self._by_form() if self.has_browser else self._by_api()) or {}

    async def _by_api(self) -> dict[str, str] | None:
        given = {"email": self.email, "password": PASSWORD}
        status, _, response = await self.crowd.ask(
            SIGN_IN, self.place, "POST", "/api/v1/auth/login", expected=200, json=given
        )
        if status != 200 or response is None:
            return None
        return {"Authorization": f"Bearer {(await response.json())['access_token']}"}

    async def _by_form(self) -> dict[str, str] | None:
        _, body, response = await self.crowd.ask(None, self.place, "GET", "/sign-in", expected=200)
        found = _CSRF.search(body)
        if found is None or response is None:
            return None
        given = {"email": self.email, "password": PASSWORD, "csrf_token": found[1].decode()}
        headers = {"Cookie": _cookies(response)}
        _, _, response = await self.crowd.ask(
            SIGN_IN, self.place, "POST", "/sign-in", expected=303, marked=False, headers=headers, data=given
        )
        return {"Cookie": _cookies(response)} if response is not None and response.status == 303 else None


def _cookies(response: aiohttp.ClientResponse) -> str:
    # By hand: aiohttp keeps no cookie of a bare address, and this one is marked Secure, as behind a proxy.
    return "; ".join(f"{name}={morsel.value}" for name, morsel in response.cookies.items())


class Nuisance(User):
    """A program of the noisy tenant that searches all its people in vain, again and again, as fast as it is let."""

    async def stay(self, arrives_s: float) -> None:
        while True:
            if not self._headers:  # one of many that sign in at once, so it may be told to wait
                await self.sign_in()
                await asyncio.sleep(0.2)
                continue
            status, _, response = await self.crowd.ask(
                SEARCH,
                self.place,
                "GET",
                "/api/v1/people?q=nobody-has-this-name&limit=200",
                expected=200,
                marked=False,
                headers=self._headers,
            )
            if status == 429 and response is not None:
                await asyncio.sleep(float(response.headers["Retry-After"]))
            elif status != 200:
                await asyncio.sleep(0.1)


def a_client() -> aiohttp.ClientSession:
    """Return a client that keeps connections as a proxy would, for all users together."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=_TIMEOUT,
    )
