"""Runs a server for as long as anyone uses it. A program of its own: the standard library only, few modules of it.

It asks for the exclusive side of the lock whose shared side every user process holds. The kernel drops a
process's share however it ends, so the answer arrives when the last one has left, crashed or been killed.
"""

import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys

TYPE_CHECKING = False  # importing typing would take as long as the rest together
if TYPE_CHECKING:
    from types import FrameType

    from tenancy.embedded.cold_start import Plan

PR_SET_PDEATHSIG = 1
STOP_TIMEOUT_S = 30


class Wake(Exception):  # noqa: N818 - a signal, not an error
    """The server ended, or the guard was asked to end."""


def wake(_signal: int, _frame: "FrameType | None") -> None:
    raise Wake


def run_server(plan: "Plan") -> None:
    server = subprocess.Popen(
        plan["command"], pass_fds=plan["command_fds"], preexec_fn=stop_with_guard, **plan["command_user"]
    )
    try:
        signal.signal(signal.SIGTERM, wake)
        signal.signal(signal.SIGCHLD, wake)
        if server.poll() is None:
            fcntl.flock(plan["users_fd"], fcntl.LOCK_EX)
    except Wake:
        pass
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # SIGINT closes sessions and checkpoints; SIGQUIT just leaves, for files that are removed anyway.
    for how in (signal.SIGQUIT if plan["discard_data"] else signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        server.send_signal(how)
        try:
            server.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            continue
        break


def stop_with_guard() -> None:
    """Let the kernel stop the server if the guard itself is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)


def main() -> None:
    plan: Plan = json.loads(sys.argv[1])
    if os.fork():
        os._exit(0)  # the launcher reaps this half; the other belongs to init
    try:
        run_server(plan)
    finally:
        import shutil

        for folder in plan["remove"]:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
