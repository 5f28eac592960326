"""A web server on this machine that does to downloads what real ones do: cuts, expires, changes, cannot resume."""

import http.server
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Server:
    """Script of the server's answers, and a record of the requests."""

    address: str
    files: dict[str, bytes] = field(default_factory=dict)
    pages: dict[str, tuple[int, str]] = field(default_factory=dict)  # path -> status, HTML
    cut: list[int] = field(default_factory=list)  # bytes after which the next answers break off
    reset: int | None = None  # bytes after which every answer's connection is reset
    fail: list[int] = field(default_factory=list)  # statuses of the next answers
    ranges: bool = True
    tag: str = '"one"'
    length: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # path, Range

    @property
    def spans(self) -> list[str | None]:
        """The Range headers of all that was asked."""
        return [span for _, span in self.asked]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        script: Server = self.server.script
        span = self.headers.get("Range")
        script.asked.append((self.path, span))
        self.close_connection = True
        if script.fail:
            self._answer(script.fail.pop(0), b"later", "text/plain")
        elif self.path in script.pages:
            status, page = script.pages[self.path]
            self._answer(status, page.encode(), "text/html; charset=utf-8")
        elif self.path in script.files:
            self._file(script, script.files[self.path], span)
        else:
            self._answer(404, b"<html>gone</html>", "text/html")

    def end_headers(self) -> None:
        self.send_header("Connection", "close")
        super().end_headers()

    def _answer(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _file(self, script: Server, content: bytes, span: str | None) -> None:
        start = int(span.removeprefix("bytes=").rstrip("-")) if span and script.ranges else 0
        if self.headers.get("If-Range") not in (None, script.tag):
            start = 0
        if start and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if script.tag:
            self.send_header("ETag", script.tag)
        if script.length:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        stop = start + script.cut.pop(0) if script.cut else len(content)
        if script.reset is not None:
            self.wfile.write(content[start : start + script.reset])
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            return
        self.wfile.write(content[start:stop])

    def log_message(self, *_):
        pass


@contextmanager
def serve() -> Iterator[Server]:
    """A server, for as long as it is wanted."""
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web.handle_error = lambda *_: None  # clients here may go away early
    web.script = Server(f"http://127.0.0.1:{web.server_port}")
    thread = threading.Thread(target=web.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield web.script
    finally:
        web.shutdown()
        web.server_close()
        thread.join()
