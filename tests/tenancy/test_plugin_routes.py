"""The sweep, on an application with the mistakes people make: each must be seen, and none called something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenancy.embedded import Server
from tests.tenancy.plugin_runs import ROLES, SHOP, Finished, Stranger

CARELESS = "tenancy_app = careless:create_app"


def careless(folder: Path, server: Server) -> Stranger:
    stranger = Stranger(folder, server, CARELESS, ROLES)
    source = SHOP.with_name("careless.py").read_text().replace('"set by the test"', repr(server.url()))
    stranger.write("careless.py", source)
    return stranger


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Finished:
    return careless(tmp_path_factory.mktemp("careless"), server).run("-q", "-k", "routes")


@pytest.mark.parametrize(
    ("endpoint", "outcome"),
    [
        ("all_orders", "leaks"),
        ("any_order", "leaks"),
        ("remove_any_order", "changes"),
        ("says_forbidden", "told apart"),
        ("reveals_customer", "told apart"),
        ("things", "not called"),
        ("sends_elsewhere", "not called"),
        ("wants_a_file", "not called"),
        ("never_there", "not called"),
    ],
)
def test_mistake_in_a_route_is_seen_for_what_it_is(swept: Finished, endpoint: str, outcome: str) -> None:
    """T118"""
    assert swept.code == 1
    assert swept.outcomes()[endpoint] == outcome


def test_routes_beside_them_stay_green(swept: Finished) -> None:
    green = {one["endpoint"] for one in swept.report["routes"] if one["passed"]}

    assert green == {
        "add_customer", "change_order", "customer", "customers", "health", "order_of", "remove_customer", "static",
    }  # fmt: skip


def test_failure_says_whose_call_was_answered_how(swept: Finished) -> None:
    (told,) = [one for one in swept.report["routes"] if one["endpoint"] == "says_forbidden"]

    assert told["detail"] == (
        "/orders/<order_id of isolation-owner>/exists: a foreign id is answered otherwise than a missing one: "
        "403 instead of 404"
    )
    assert "isolation-stranger: GET /orders/<order_id of isolation-owner>/exists -> 403" in swept.output


def test_route_that_cannot_be_called_asks_for_what_it_needs(swept: Finished) -> None:
    told = {one["endpoint"]: one["detail"] for one in swept.report["routes"]}

    assert "nothing tells which rows 'thing' stands for" in told["things"]
    assert "itself was sent elsewhere (302), and nothing changed" in told["sends_elsewhere"]
    assert "itself is answered 400" in told["wants_a_file"]
    assert "itself is answered 404" in told["never_there"]
    assert "or declare it with a reason in pytest_tenancy_unswept" in told["things"]


def test_route_is_called_as_the_hooks_say(tmp_path: Path, server: Server) -> None:
    stranger = careless(tmp_path / "helped", server)
    stranger.write(
        "conftest.py",
        "import io\n"
        "def pytest_tenancy_unswept():\n"
        "    return {'GET sends_elsewhere': 'leads to a page that is swept itself', 'never_there': 'not built yet'}\n"
        "def pytest_tenancy_request(endpoint, method, tenant, rows):\n"
        "    if endpoint == 'wants_a_file':\n"
        "        return {'form': {'file': (io.BytesIO(b'x'), tenant.slug)}}\n"
        "    if endpoint == 'things':\n"
        "        return {'path': {'thing': 'round'}}\n"
        "def pytest_tenancy_sign_in(client, tenant):\n"
        "    client.headers['X-Who'] = tenant.slug\n",
    )

    finished = stranger.run("-q", "-k", "sends_elsewhere or never_there or wants_a_file or things")

    assert finished.code == 0, finished.output
    assert finished.outcomes() == {
        "sends_elsewhere": "declared",
        "never_there": "declared",
        "wants_a_file": "apart",
        "things": "apart",
    }


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ("{'things': ' '}", "route 'things' is declared unswept for no reason"),
        ("{'thongs': 'typing'}", "'thongs' is declared unswept, and there is no such endpoint"),
    ],
)
def test_declaration_that_fits_nothing_is_an_error(tmp_path: Path, server: Server, declared: str, message: str) -> None:
    stranger = careless(tmp_path / "declared", server)
    stranger.write("conftest.py", f"def pytest_tenancy_unswept():\n    return {declared}\n")

    finished = stranger.run("-q", "--collect-only")

    assert finished.code != 0
    assert message in finished.output
