"""A web server as storage, which fails as often as a file's path says."""

import http.server
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def storage_server(data: bytes) -> Iterator[str]:
    """Serve one recording below ``/STATUS/TIMES/NAME``: the status comes that many times, then the recording.

    Yields:
        The server's URL.
    """
    counts: Counter[str] = Counter()

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _, status, times, _ = self.path.split("/")
            counts[self.path] += 1
            is_served = counts[self.path] > int(times)
            self.send_response(200 if is_served else int(status))
            self.send_header("Content-Length", str(len(data) if is_served else 0))
            self.end_headers()
            if is_served and self.command == "GET":
                self.wfile.write(data)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()
        thread.join()
