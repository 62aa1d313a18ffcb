"""A hub on this machine: the requests by which huggingface_hub makes, fills and reads repositories.

It keeps files in memory. Safetensors go by LFS, everything else inside the commit, as on the hub.
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

COMMIT = "c" * 40


@dataclass
class Repository:
    private: bool = False
    files: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Hub:
    """Its repositories, and what tokens may do: "write", or "read"."""

    address: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)  # of LFS, by SHA-256


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Inside, it listens on this machine."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""

    def _say(self, status: int, said: Any = None, **headers: str) -> None:
        body = said if isinstance(said, bytes) else json.dumps(said or {}).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()  # the empty line at the end
        return body

    def _right(self) -> str:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        return self.hub.tokens.get(token, "none")

    def do_GET(self) -> None:
        path = self.path.split("?")[0].strip("/")
        if path.startswith("api/models/"):
            name = path.removeprefix("api/models/")
            repository = self._repository(name)
            if repository is not None:
                held = [{"rfilename": file} for file in repository.files]
                self._say(
                    200,
                    {"id": name, "private": repository.private, "siblings": held, "sha": COMMIT},
                )
            return
        name, _, file = path.partition("/resolve/main/")
        repository = self._repository(name)
        if repository is None:
            return
        if file not in repository.files:
            self._say(404, X_Error_Code="EntryNotFound")
            return
        data = repository.files[file]
        self._say(200, data, ETag=f'"{hashlib.sha1(data).hexdigest()}"', X_Repo_Commit=COMMIT)

    do_HEAD = do_GET

    def _repository(self, name: str) -> Repository | None:
        """The repository, if there is one that may be read; else that is said."""
        found = self.hub.repositories.get(name)
        if found is None or (found.private and self._right() == "none"):
            self._say(404, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
            return None
        return found

    def do_PUT(self) -> None:
        data = self._body()
        self.hub.objects[hashlib.sha256(data).hexdigest()] = data
        self._say(200)

    def do_POST(self) -> None:
        body, path = self._body(), self.path.split("?")[0].strip("/")
        if path == "api/validate-yaml":
            self._say(200, {"errors": [], "warnings": []})
        elif (right := self._right()) != "write":
            status = 401 if right == "none" else 403
            self._say(status, X_Error_Message="Invalid token" if status == 401 else "Forbidden")
        elif path == "api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            is_private = asked.get("visibility") == "private" or asked.get("private") is True
            self.hub.repositories[name] = Repository(is_private)
            self._say(200, {"url": f"{self.hub.address}/{name}"})
        elif path.endswith("/preupload/main"):
            names = [file["path"] for file in json.loads(body)["files"]]
            self._say(200, {"files": [_upload_mode(name) for name in names]})
        elif path.endswith(".git/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            self._say(
                200,
                {"transfer": "basic", "objects": [self._upload_action(one) for one in objects]},
            )
        else:
            name = path.removeprefix("api/models/").removesuffix("/commit/main")
            self._commit(name, [json.loads(line) for line in body.splitlines()])

    def _upload_action(self, one: dict[str, Any]) -> dict[str, Any]:
        address = f"{self.hub.address}/objects/{one['oid']}"
        return {**one, "actions": {"upload": {"href": address}}}

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        files = self.hub.repositories[name].files
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
        address = f"{self.hub.address}/{name}/commit/{COMMIT}"
        self._say(200, {"commitUrl": address, "commitOid": COMMIT})


def _upload_mode(name: str) -> dict[str, Any]:
    mode = "lfs" if name.endswith(".safetensors") else "regular"
    return {"path": name, "uploadMode": mode, "shouldIgnore": False, "oid": None}
