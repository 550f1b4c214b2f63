"""`python .ci/look_at_site.py`: what a browser makes of build/site, at the widths of two screens.

Every page must fit its window without a horizontal scroll bar, show all its pictures, and have a
heading. Chromium loads the pages in frames of one page of ours, which measures them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from typing import Any

SITE = Path(__file__).parents[1] / "build/site"
WIDTHS = (400, 1280)
MEASURE = """
<body>
<script>
const found = {};
async function look(page, width) {
  const frame = document.createElement("iframe");
  frame.style = `border: 0; width: ${width}px; height: 900px`;
  frame.src = page;
  const loaded = new Promise((done) => { frame.onload = done; });
  document.body.append(frame);
  const patience = new Promise((done) => setTimeout(done, 10000));
  await Promise.race([loaded, patience]);
  const shown = frame.contentDocument;
  const pictures = [...shown.images].map((image) => {
    image.loading = "eager";
    return image.decode().catch(() => {});
  });
  await Promise.race([Promise.all(pictures), patience]);
  found[`${page} at ${width}`] = {
    overflow: shown.documentElement.scrollWidth - shown.documentElement.clientWidth,
    broken: [...shown.images].filter((i) => !i.naturalWidth).map((i) => i.getAttribute("src")),
    heading: shown.querySelector("h1")?.innerText ?? "",
  };
  frame.remove();
}
async function all(pages, widths) {
  for (const page of pages) for (const width of widths) await look(page, width);
  await fetch("/found", { method: "POST", body: JSON.stringify(found) });
}
all(PAGES, WIDTHS);
</script>
</body>
"""


class Handler(SimpleHTTPRequestHandler):
    """Serves the site and the page that measures it, and takes what that page found."""

    def __init__(self, *arguments: Any, page: str, found: Queue[bytes]) -> None:
        self.page, self.found = page.encode(), found
        super().__init__(*arguments, directory=str(SITE))

    def do_GET(self) -> None:
        if self.path == "/measure":
            self.answer(self.page)
        else:
            super().do_GET()

    def do_POST(self) -> None:
        self.found.put(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(b"")

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass
        pass


def measure(chromium: str, seconds: float = 180) -> dict[str, dict[str, object]]:
    """What the browser found, by page and width.

    Raises:
        Empty: it found nothing in that time.
    """
    pages = sorted(f"/{path.relative_to(SITE)}" for path in SITE.rglob("index.html"))
    page = MEASURE.replace("PAGES", json.dumps(pages)).replace("WIDTHS", json.dumps(WIDTHS))
    found: Queue[bytes] = Queue()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, page=page, found=found))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += ["--remote-debugging-port=0"]  # stays until it is ended
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command += [f"--user-data-dir={profile}", "--window-size=1400,1000"]
        command += [f"http://127.0.0.1:{server.server_port}/measure"]
        browser = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            views: dict[str, dict[str, object]] = json.loads(found.get(timeout=seconds))
        finally:
            browser.terminate()
            browser.wait()
            server.shutdown()
    return views


def main() -> None:
    chromium = shutil.which("chromium")
    if chromium is None or not SITE.exists():
        sys.exit("Needs Chromium (Debian package chromium), and the site: make docs")
    found = measure(chromium)
    wrong = [
        f"{name}: {facts}"
        for name, facts in found.items()
        if facts["overflow"] != 0 or facts["broken"] or not facts["heading"]
    ]
    print(f"{len(found)} views of pages, {len(wrong)} with faults")
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
