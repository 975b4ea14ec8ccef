"""Another process of the same installation: for each line of JSON it reads, the status and code of a request.

Started with the path of a JSON file of settings; a line has a `host`, and may have a `path`, a `token` and a `cookie`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from app import close_app, create_app
from app.config import Settings


def main() -> None:
    settings = Settings(**json.loads(Path(sys.argv[1]).read_text()))
    app = create_app(settings)
    client = app.test_client(use_cookies=False)
    try:
        for line in sys.stdin:
            asked: dict[str, Any] = json.loads(line)
            headers = {"Accept": "application/problem+json"}
            if "token" in asked:
                headers["Authorization"] = f"Bearer {asked['token']}"
            if "cookie" in asked:
                headers["Cookie"] = asked["cookie"]
            answer = client.get(asked.get("path", "/api/v1/people"), base_url=asked["host"], headers=headers)
            body = answer.get_json(silent=True) or {}
            sys.stdout.write(json.dumps([answer.status_code, body.get("code")]) + "\n")
            sys.stdout.flush()
    finally:
        close_app(app)


if __name__ == "__main__":
    main()
