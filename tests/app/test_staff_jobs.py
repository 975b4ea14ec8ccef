"""What no longer counts does not stay for ever."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from flask import Flask

from app.staff.jobs import remove_spent
from tests.app.conftest import Truth
from tests.app.staffing import staff_client

REASON = "for a test"


def test_what_no_longer_counts_is_removed_and_the_rest_stays(app: Flask, truth: Truth) -> None:
    ana, bob = staff_client(app), staff_client(app)
    for staffer in (ana, bob):
        link = staffer.post(
            f"/staff/{staffer.id}/password-link", json={"reason": REASON}, headers={"Idempotency-Key": "one"}
        )
        assert link.status_code == 201
    now = datetime.now(UTC)
    truth.execute("UPDATE kept_answers SET expires_at = %s WHERE actor_id = %s", [now, str(bob.id)])
    for table in ("staff_sign_ins", "staff_links"):
        truth.execute(
            f"UPDATE {table} SET expires_at = %s WHERE staff_id = %s",
            [now - timedelta(days=30), bob.id],
        )

    with app.app_context():
        assert remove_spent(now) >= 3

    for table in ("staff_sign_ins", "staff_links"):
        left = truth.execute(
            f"SELECT staff_id FROM {table} WHERE staff_id IN (%s, %s)",
            [ana.id, bob.id],
        ).fetchall()
        assert left == [(ana.id,)]
    kept = truth.execute(
        "SELECT actor_id FROM kept_answers WHERE actor_id IN (%s, %s)", [str(ana.id), str(bob.id)]
    ).fetchall()
    assert kept == [(str(ana.id),)]
