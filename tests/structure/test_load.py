"""The load tool notices what it is there to notice, and runs from end to end."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import aiohttp
import pytest

from benchmarks.load.rows import quantile, rows_of
from benchmarks.load.run import ALONE, NOISE_OFF, NOISE_ON, Course, Plan, measure
from benchmarks.load.subject import A_MARKER, Place, Service, build
from benchmarks.load.users import LIST, OPERATIONS, SEARCH, Crowd, Tally, a_client
from tenancy.embedded import Server

OWN, FOREIGN = "mark-0123456789ab", "mark-ba9876543210"
ACME = Place("load-001", UUID(int=1), OWN, ["user0@load.example"])
NOISY = Place("load-002", UUID(int=2), FOREIGN, ["user0@load.example"])


@pytest.mark.parametrize(
    ("status", "body", "foreign", "errors", "refused"),
    [
        (200, f'{{"items": ["{OWN} person 7"]}}', 0, [], 0),
        (200, f'{{"items": ["{OWN} person 7", "{FOREIGN} person 7"]}}', 1, [], 0),
        (500, f"an error that shows {FOREIGN}", 1, ["list people: 500"], 0),
        (200, '{"items": []}', 0, ["list people: nothing of its own"], 0),
        (503, "busy", 0, ["list people: 503"], 0),
        (429, "busy", 0, [], 1),
    ],
)
async def test_every_answer_is_searched_for_foreign_rows(
    status: int, body: str, foreign: int, errors: list[str], refused: int
) -> None:
    async with a_client() as http:
        crowd, tally = Crowd(http), Tally()
        crowd.judge(tally, ACME, status, body.encode(), operation=LIST, expected=200, marked=True)

    assert len(tally.foreign) == foreign
    assert [what for _, what in tally.errors] == errors
    assert (tally.refusals["load-001"], tally.checked) == (refused, 1)


async def test_request_that_gets_no_answer_is_an_error() -> None:
    async with a_client() as http:
        crowd = Crowd(http)
        crowd.port = 1
        await crowd.ask(LIST, ACME, "GET", "/", expected=200)

    assert [what for _, what in crowd.tally.errors] == [aiohttp.ClientConnectorError.__name__]
    assert crowd.tally.of() == []


def test_quantiles_are_those_of_all_values() -> None:
    values = [float(number) for number in range(1, 101)]

    assert [round(quantile(values, part)) for part in (0.5, 0.95, 0.99)] == [50, 95, 99]


def test_goals_are_missed_by_a_foreign_row_an_error_and_a_slow_neighbour() -> None:
    tallies = {name: Tally(seconds=1.0) for name in (ALONE, NOISE_OFF, NOISE_ON)}
    for name, time_s in ((ALONE, 0.010), (NOISE_OFF, 0.100), (NOISE_ON, 0.016)):
        tallies[name].times_s[LIST, "load-001"] = [time_s] * 20
    together = Tally(seconds=1.0, foreign=["seen"], checked=40)
    together.times_s[LIST, "load-001"] = [0.010] * 20
    together.refusals["load-001"] = 1
    beside = {name: [tally] for name, tally in tallies.items()}
    service = Service("", "", "", [ACME, NOISY], NOISY, Path())

    rows = {row.name: row for row in rows_of(Course(Plan(), service, together, beside, Tally()))}

    goals = {(row.name, goal.of): goal.is_reached(row) for row in rows.values() for goal in row.goals}
    assert goals == {
        ("answers", "with a foreign row"): False,
        ("answers", "errors, everybody at once"): False,
        ("quiet tenants, p95", NOISE_ON): False,
        ("quiet tenants, errors", NOISE_ON): True,
    }


@pytest.mark.timeout(180)
def test_small_crowd_does_everything_and_sees_only_its_own(server: Server, tmp_path: Path) -> None:
    plan = Plan(
        tenants=2, users=6, think_s=0.3, ramp_s=2, calm_s=0.5, window_s=6, rounds=1, block_s=2, settle_s=0.5, clients=4
    )
    service = build(server, tmp_path, tenants=2, users=6, noisy_people=500)

    course = measure(service, plan, lambda _phase, _done, _tally: None)

    with server.connect() as admin:
        admin.execute(f"DROP DATABASE {service.database} WITH (FORCE)".encode())
    assert [operation for operation in OPERATIONS if not course.together.of(operation)] == []
    assert course.beside[NOISE_OFF][0].of(SEARCH)
    assert [tally.foreign for tally in course.tallies] == [[]] * 5
    assert not course.together.errors
    assert len({place.marker for place in service.places}) == 2
    assert A_MARKER.fullmatch(service.noisy.marker.encode())
