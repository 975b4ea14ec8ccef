"""Another process that serves one tenant's requests, until it is stopped: says `served` after each line it reads.

Started with the path of a JSON file of settings and an access token. SIGTERM ends it as it ends the server.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from app import close_app, create_app
from app.config import Settings
from app.server import StopAsked, stop_on_signals


def main(path: str, token: str) -> None:
    app = create_app(Settings(**json.loads(Path(path).read_text())))
    client = app.test_client(use_cookies=False)
    with stop_on_signals():
        try:
            for _line in sys.stdin:
                answer = client.get("/api/v1/people", headers={"Authorization": f"Bearer {token}"})
                sys.stdout.write(f"served {answer.status_code}\n")
                sys.stdout.flush()
        except StopAsked:
            pass
        finally:
            close_app(app)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
