"""A page of another origin, in a real browser: it sends a recording with a key, and reads what comes back."""

import json
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fake_transcriber import FakeSource, FakeTranscriber, speech, wav

from serve.gateway import Gateway
from serve.settings import Limits

pytestmark = pytest.mark.slow

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PAGE = """<!doctype html><script>
async function ask(url, key) {
  const form = new FormData();
  form.append("file", await (await fetch("/speech.wav")).blob(), "speech.wav");
  form.append("model", "sottovoce");
  const headers = {Authorization: "Bearer " + key};
  const answer = await fetch(url + "/v1/audio/transcriptions", {method: "POST", headers, body: form});
  return {status: answer.status, id: answer.headers.get("x-request-id"), body: await answer.json()};
}
async function main() {
  const found = {};
  for (const [name, url, key] of CALLS) {
    found[name] = await ask(url, key).catch((error) => ({error: error.name}));
  }
  await fetch("/found", {method: "POST", body: JSON.stringify(found)});
}
main();
</script>"""


class PageServer(ThreadingHTTPServer):
    """The page's own origin; what the page found is sent back to it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), PageHandler)
        self.found: queue.Queue[dict[str, Any]] = queue.Queue()
        self.page = ""

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class PageHandler(BaseHTTPRequestHandler):
    server: PageServer

    def do_GET(self) -> None:
        recording = self.path == "/speech.wav"
        body = wav(speech(3.0)) if recording else self.server.page.encode()
        self.send_response(200)
        self.send_header("content-type", "audio/wav" if recording else "text/html")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.server.found.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def running(gateway: Gateway) -> Iterator[str]:
    """Serve a gateway at a free port."""
    config = uvicorn.Config(gateway.build_api(), port=0, log_level="error", ws="none", lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
        assert thread.is_alive()
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def page_server() -> Iterator[PageServer]:
    with PageServer() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def browse(url: str, server: PageServer, profile: Path) -> dict[str, Any]:
    """Open a page without a window, and return what it found."""
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")
    command = [str(CHROMIUM), *flags, f"--user-data-dir={profile}", url]
    browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return server.found.get(timeout=60.0)
    finally:
        browser.terminate()
        browser.wait(timeout=20.0)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_page_of_an_allowed_origin_transcribes_and_another_cannot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("SOME_KEYS", "right")

    def gateway(*origins: str) -> Gateway:
        return Gateway(
            FakeTranscriber(), source=FakeSource(), limits=Limits(), api_keys_env="SOME_KEYS", allow_origins=origins
        )

    with page_server() as pages, running(gateway(pages.origin)) as open_to_it, running(gateway()) as closed:
        calls = [["right", open_to_it, "right"], ["wrong", open_to_it, "wrong"], ["closed", closed, "right"]]
        pages.page = PAGE.replace("CALLS", json.dumps(calls))
        found = browse(pages.origin, pages, tmp_path / "profile")
    assert (found["right"]["status"], found["right"]["body"]["text"]) == (200, "3000 ms")
    assert found["right"]["id"]
    assert (found["wrong"]["status"], found["wrong"]["body"]["error"]["code"]) == (401, "invalid_api_key")
    assert found["closed"] == {"error": "TypeError"}
