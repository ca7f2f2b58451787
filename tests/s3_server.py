"""A small S3 for tests: one bucket in memory, path-style, as much of the protocol as a file system over it asks for.

with S3Server() as s3:
    subprocess.run(..., env={**os.environ, **s3.environment})

Requests must be signed with this key's name (the signature itself is not checked). `broken` is told of each request
once it is there as a whole, before anything is done, and says whether it fails.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

BUCKET = "house"
KEY = "AKIDTESTTESTTEST"
_HEAD = '<?xml version="1.0" encoding="UTF-8"?>'
_WHEN = "2026-11-20T12:00:00.000Z"


class S3Server:
    """Serves while the `with` block runs. `objects`: what is stored, by name; `asked`: the requests, as "PUT name".
    `bucket`: the one there is; `key`: the one that is known."""

    def __init__(self) -> None:
        self.bucket, self.key = BUCKET, KEY
        self.objects: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.broken: Callable[[str], bool] = lambda _: False
        self.lock = threading.Lock()
        made = type("_Bound", (_Handler,), {"s3": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), made)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def environment(self) -> dict[str, str]:
        """What tells clients where it is."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._server.server_port}",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": "not-checked",
            "AWS_DEFAULT_REGION": "eu-central-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    s3: S3Server

    def _answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] = {}) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _fails(self, status: int, code: str) -> None:
        self._answer(status, f"{_HEAD}<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode())

    def _serve(self) -> None:
        url, body = urlsplit(self.path), self._body()
        bucket, _, name = unquote(url.path).removeprefix("/").partition("/")
        query = {key: values[0] for key, values in parse_qs(url.query, keep_blank_values=True).items()}
        asked = f"{self.command} {name or '?' + '&'.join(sorted(query))}"
        with self.s3.lock:
            self.s3.asked.append(asked)
        if self.s3.key not in self.headers.get("authorization", ""):
            return self._fails(403, "InvalidAccessKeyId")
        if self.s3.broken(asked):
            return self._fails(503, "SlowDown")
        if bucket != self.s3.bucket:
            return self._fails(404, "NoSuchBucket")
        with self.s3.lock:
            if not name:
                return self._of_bucket(query, body)
            return self._of_object(name, body)

    def _of_bucket(self, query: dict[str, str], body: bytes) -> None:
        if self.command == "GET":
            return self._answer(200, self._listed(query.get("prefix", ""), query.get("delimiter", "")))
        if self.command == "POST" and "delete" in query:
            named = [one.text or "" for one in ElementTree.fromstring(body).iter() if one.tag.endswith("Key")]
            for name in named:
                self.s3.objects.pop(name, None)
            done = "".join(f"<Deleted><Key>{escape(name)}</Key></Deleted>" for name in named)
            return self._answer(200, f"{_HEAD}<DeleteResult>{done}</DeleteResult>".encode())
        return self._answer(200)

    def _listed(self, prefix: str, delimiter: str) -> bytes:
        names = [name for name in sorted(self.s3.objects) if name.startswith(prefix)]
        folders = dict.fromkeys(
            prefix + name[len(prefix) :].partition(delimiter)[0] + delimiter
            for name in names
            if delimiter and delimiter in name[len(prefix) :]
        )
        files = [name for name in names if not (delimiter and delimiter in name[len(prefix) :])]
        found = "".join(
            f"<Contents><Key>{escape(name)}</Key><LastModified>{_WHEN}</LastModified><ETag>{_tag(of)}</ETag>"
            f"<Size>{len(of)}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            for name, of in ((name, self.s3.objects[name]) for name in files)
        ) + "".join(f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in folders)
        count = len(files) + len(folders)
        return (
            f"{_HEAD}<ListBucketResult><Name>{BUCKET}</Name><Prefix>{escape(prefix)}</Prefix>"
            f"<KeyCount>{count}</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{found}"
            "</ListBucketResult>"
        ).encode()

    def _of_object(self, name: str, body: bytes) -> None:
        objects = self.s3.objects
        if self.command == "PUT":
            objects[name] = body
            return self._answer(200, headers={"ETag": _tag(body)})
        if self.command == "DELETE":
            objects.pop(name, None)
            return self._answer(204)
        if name not in objects:
            return self._fails(404, "NoSuchKey")
        of = objects[name]
        more = {"ETag": _tag(of), "Last-Modified": "Fri, 20 Nov 2026 12:00:00 GMT", "Accept-Ranges": "bytes"}
        if self.command == "HEAD":
            return self._answer(200, headers={**more, "Content-Length": str(len(of))})
        wanted = self.headers.get("range", "").removeprefix("bytes=")
        if not wanted:
            return self._answer(200, of, more)
        first, _, last = wanted.partition("-")
        start = int(first) if first else max(len(of) - int(last), 0)
        end = min(int(last), len(of) - 1) if first and last else len(of) - 1
        if start > end:
            return self._fails(416, "InvalidRange")
        whole = {**more, "Content-Range": f"bytes {start}-{end}/{len(of)}"}
        return self._answer(206, of[start : end + 1], whole)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

    def _body(self) -> bytes:
        size = int(self.headers.get("content-length") or 0)
        raw = self.rfile.read(size)
        if len(raw) < size:
            raise ConnectionError("who sent it died on the way: nothing of it counts")
        return _unchunked(raw) if "aws-chunked" in self.headers.get("content-encoding", "") else raw

    def log_message(self, format: str, *args: object) -> None:
        """Requests are in `asked`."""


def _tag(body: bytes) -> str:
    return f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'


def _unchunked(raw: bytes) -> bytes:
    """What was sent in chunks, with signatures or a checksum behind."""
    found = b""
    while raw:
        head, _, rest = raw.partition(b"\r\n")
        size = int(head.partition(b";")[0], 16)
        if not size:
            break
        found, raw = found + rest[:size], rest[size + 2 :]
    return found
