"""Windows of rate limits in PostgreSQL: what `limits` has no storage for, and right across all processes."""

from __future__ import annotations

import hmac
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from limits.storage import Storage
from sqlalchemy import Engine, LargeBinary, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import SQLAlchemyError

from tenancy.context import outside_any_scope

# Sorted by the caller, so that two who take from the same windows lock them in one order.
_TAKE = text(
    "SELECT t.taken, t.left_s FROM unnest(:keys) WITH ORDINALITY k (key, place), "
    "LATERAL limits.take(k.key, :window_s, :amount) t ORDER BY k.place"
).bindparams(bindparam("keys", type_=ARRAY(LargeBinary)))
_LOOK = text("SELECT t.taken, t.left_s FROM limits.look(:key) t").bindparams(bindparam("key", type_=LargeBinary))
_FORGET = text("SELECT limits.forget(:key)").bindparams(bindparam("key", type_=LargeBinary))


@dataclass(frozen=True)
class Taken:
    """What a window stands at after taking from it: the sum, and the seconds until it begins anew."""

    taken: int
    resets_in_s: float


class PostgresStorage(Storage):
    """A storage of `limits` in an unlogged table, reached by functions that know a window by its sealed key only.

    secret: seals the keys, so that the table names nobody, and nobody else can name a window.
    Windows begin at multiples of their length, by the server's clock.
    """

    STORAGE_SCHEME = None

    def __init__(self, engine: Engine, secret: bytes) -> None:
        super().__init__()
        self._engine = engine
        self._secret = secret

    @property
    def base_exceptions(self) -> type[Exception]:
        return SQLAlchemyError

    def take(self, keys: Sequence[str], window_s: int, amount: int) -> list[Taken]:
        """Add to several windows at once, in one statement and two flights. A negative amount gives back."""
        sealed = {key: self._sealed(key) for key in keys}
        ordered = sorted(keys, key=sealed.__getitem__)
        with outside_any_scope(), self._engine.begin() as connection:
            given = {"keys": [sealed[key] for key in ordered], "window_s": window_s, "amount": amount}
            rows = connection.execute(_TAKE, given).all()
        found = {key: Taken(row.taken, row.left_s) for key, row in zip(ordered, rows, strict=True)}
        return [found[key] for key in keys]

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        return self.take([key], expiry, amount)[0].taken

    def get(self, key: str) -> int:
        found = self._look(key)
        return 0 if found is None else found.taken

    def get_expiry(self, key: str) -> float:
        found = self._look(key)
        return time.time() + (0.0 if found is None else found.resets_in_s)

    def check(self) -> bool:
        self._look("")
        return True

    def reset(self) -> int | None:
        raise NotImplementedError("windows of other programs are in the table, too: wait until they end")

    def clear(self, key: str) -> None:
        self._run(_FORGET, key)

    def _look(self, key: str) -> Taken | None:
        row = self._run(_LOOK, key)
        return None if row is None else Taken(row.taken, row.left_s)

    def _run(self, statement: Any, key: str) -> Any:
        with outside_any_scope(), self._engine.begin() as connection:
            return connection.execute(statement, {"key": self._sealed(key)}).one_or_none()

    def _sealed(self, key: str) -> bytes:
        return hmac.digest(self._secret, key.encode("utf-8", "surrogatepass"), sha256)
