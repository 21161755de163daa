"""A small server that answers as the Hugging Face hub does, on loopback, with faults on request."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "c" * 40


@dataclass
class Hub:
    """Repositories by name, and how the server misbehaves.

    `cut_after`: bytes of a body before the connection is closed, once; with `hold`, when that is set. `redirect`: files come from
    another address, as from the hub's stores. `gated`, `private`: names of repositories. `wrong`:
    bodies are other bytes than the hashes that are told. `refuse`: a status for every request.
    """

    repositories: dict[str, dict[str, bytes]]
    card: dict[str, str] = field(default_factory=lambda: {"license": "openrail++"})
    cut_after: int | None = None
    hold: threading.Event | None = None
    redirect: bool = False
    gated: tuple[str, ...] = ()
    private: tuple[str, ...] = ()
    wrong: bool = False
    refuse: int | None = None
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    url: str = ""

    @property
    def ranges(self) -> list[str | None]:
        """The Range headers of the downloads so far."""
        return [
            wanted
            for method, path, wanted in self.requests
            if method == "GET" and "/api/" not in path
        ]


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    class Handler(_Handler):
        served = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    served: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        hub, path = self.served, unquote(urlsplit(self.path).path)
        hub.requests.append((self.command, path, self.headers.get("Range")))
        if hub.refuse:
            return self.send_nothing(hub.refuse)
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            return self.describe("/".join(parts[2:4]))
        repository = "/".join(parts[1:3] if parts[0] == "store" else parts[:2])
        if not self.allowed(repository):
            return None
        file = "/".join(parts[3:] if parts[0] == "store" else parts[4:])
        if file not in hub.repositories[repository]:
            return self.send_nothing(404, "EntryNotFound")
        if hub.redirect and parts[0] != "store":
            return self.point_to(repository, file)
        return self.send_file(hub.repositories[repository][file])

    def allowed(self, repository: str) -> bool:
        hub = self.served
        if repository in hub.gated:
            self.send_nothing(403, "GatedRepo")
        elif repository in hub.private or repository not in hub.repositories:
            self.send_nothing(401, "RepoNotFound")
        else:
            return True
        return False

    def describe(self, repository: str) -> None:
        if not self.allowed(repository):
            return
        siblings = [
            {"rfilename": name, "size": len(data), "blobId": "b"}
            | ({"lfs": _pointer(data)} if name.endswith(".safetensors") else {})
            for name, data in self.served.repositories[repository].items()
        ]
        card = {"cardData": self.served.card, "tags": []}
        body = {"id": repository, "modelId": repository, "sha": COMMIT, "siblings": siblings}
        self.send_body(json.dumps(body | card).encode(), {"Content-Type": "application/json"})

    def point_to(self, repository: str, file: str) -> None:
        data = self.served.repositories[repository][file]
        self.send_response(302)
        for name, value in {
            "Location": f"{self.served.url}/store/{repository}/{file}",
            "X-Repo-Commit": COMMIT,
            "X-Linked-Size": str(len(data)),
            "X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"',
            "Content-Length": "0",
        }.items():
            self.send_header(name, value)
        self.end_headers()

    def send_file(self, data: bytes) -> None:
        hub, start, headers = self.served, 0, {}
        if wanted := self.headers.get("Range"):
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        headers |= {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT}
        body = data[::-1] if hub.wrong else data
        self.send_body(body[start:], headers, status=206 if wanted else 200)

    def send_body(self, body: bytes, headers: dict[str, str], status: int = 200) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        cut, self.served.cut_after = self.served.cut_after, None
        self.wfile.write(body if cut is None else body[:cut])
        if cut is not None and self.served.hold:
            self.served.hold.wait(60)
        self.close_connection = True

    def send_nothing(self, status: int, code: str = "") -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _pointer(data: bytes) -> dict[str, object]:
    digits = hashlib.sha256(data).hexdigest()
    return {"size": len(data), "sha256": digits, "oid": digits, "pointerSize": 134}
