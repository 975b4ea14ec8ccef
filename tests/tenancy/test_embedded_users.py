"""A data folder's server lives exactly as long as somebody uses it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from tenancy.embedded import Server, start
from tenancy.embedded.folder import DataFolder

FAST = {"fsync": "off"}
USE = """
import signal
import sys
from pathlib import Path
from tenancy.embedded import start
# A test run started in the background ignores SIGINT, and its children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
server = start(Path(sys.argv[1]), settings={"fsync": "off"})
with server.connect() as connection:
    started_at = connection.execute("SELECT pg_postmaster_start_time()").fetchone()[0]
try:
    print(started_at.isoformat(), flush=True)
    sys.stdin.read()
except KeyboardInterrupt:
    with server.connect() as connection:
        print(connection.execute("SELECT 'still here'").fetchone()[0], flush=True)
"""

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


class User:
    """Another process that uses the server of a folder until its input ends."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", USE, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,
        )

    def says(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def user_of() -> Iterator[Callable[[Path], User]]:
    users: list[User] = []

    def new_user(folder: Path) -> User:
        users.append(User(folder))
        return users[-1]

    yield new_user
    for user in users:
        user.process.communicate()


def postmaster_pid(folder: Path) -> int:
    postmaster = DataFolder(folder).postmaster()
    assert postmaster is not None
    return postmaster.pid


def wait_until(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def rows(server: Server) -> list[tuple[object, ...]]:
    with server.connect() as connection:
        return connection.execute("SELECT word FROM kept").fetchall()


def keep(server: Server, word: str) -> None:
    with server.connect() as connection:
        connection.execute("CREATE TABLE kept (word text)")
        connection.execute("INSERT INTO kept VALUES (%s)", [word])


def test_six_processes_starting_at_once_share_one_server(tmp_path, user_of):
    users = [user_of(tmp_path / "pg") for _ in range(6)]

    started_at = {user.says() for user in users}

    assert len(started_at) == 1
    assert started_at != {""}


@needs_proc
def test_server_outlives_a_killed_user_and_ends_with_the_last(tmp_path, user_of):
    first, last = user_of(tmp_path / "pg"), user_of(tmp_path / "pg")
    assert first.says() == last.says()
    pid = postmaster_pid(tmp_path / "pg")

    first.kill()
    time.sleep(0.3)
    assert is_alive(pid)

    last.kill()
    wait_until(lambda: not is_alive(pid))
    assert not (tmp_path / "pg" / "cluster" / "postmaster.pid").exists()


@needs_proc
def test_server_ends_when_its_guard_is_killed(tmp_path):
    with start(tmp_path / "pg", settings=FAST):
        pid = postmaster_pid(tmp_path / "pg")

        os.kill(parent_of(pid), signal.SIGKILL)

        wait_until(lambda: not is_alive(pid))


def test_ctrl_c_in_the_terminal_leaves_the_server_to_the_app(tmp_path, user_of):
    user = user_of(tmp_path / "pg")
    assert user.says()

    os.killpg(user.process.pid, signal.SIGINT)

    assert user.says() == "still here"


def test_rows_survive_a_restart(tmp_path):
    with start(tmp_path / "pg") as server:
        keep(server, "hello")

    with start(tmp_path / "pg") as server:
        assert rows(server) == [("hello",)]


def test_close_waits_until_the_server_has_stopped(tmp_path):
    server = start(tmp_path / "pg", settings=FAST)
    url = server.url().replace("+psycopg", "")

    server.close()
    server.close()

    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)


def test_second_server_object_keeps_the_server_after_the_first_is_closed(tmp_path):
    first = start(tmp_path / "pg", settings=FAST)
    with start(tmp_path / "pg") as second:
        first.close()

        with second.connect() as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


@needs_proc
def test_number_of_a_living_stranger_in_a_stale_pid_file_does_not_stop_a_start(tmp_path, user_of):
    user = user_of(tmp_path / "pg")
    assert user.says()
    with start(tmp_path / "pg") as server:
        keep(server, "hello")
    pid_file = tmp_path / "pg" / "cluster" / "postmaster.pid"
    pid = postmaster_pid(tmp_path / "pg")
    guard = parent_of(pid)
    owner = pid_file.stat()
    for process in (guard, pid):
        os.kill(process, signal.SIGSTOP)
    for process in (user.process.pid, pid, guard):
        os.kill(process, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid) and not is_alive(guard))
    credentials = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    with subprocess.Popen(["sleep", "60"], cwd="/", **credentials) as stranger:
        lines = pid_file.read_text().splitlines()
        pid_file.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")

        with start(tmp_path / "pg") as server:
            assert rows(server) == [("hello",)]
        assert stranger.poll() is None
        stranger.kill()


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
