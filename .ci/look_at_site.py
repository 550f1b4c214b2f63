"""`python .ci/look_at_site.py`: what a browser makes of build/site, at the widths of two screens.

Every page must fit its window without a horizontal scroll bar, show all its pictures, and have a
heading. Chromium loads the pages in frames of one page of ours, which measures them.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SITE = Path(__file__).parents[1] / "build/site"
WIDTHS = (400, 1280)
MEASURE = """
<pre id="found"></pre>
<script>
const found = {};
async function look(page, width) {
  const frame = document.createElement("iframe");
  frame.style = `border: 0; width: ${width}px; height: 900px`;
  frame.src = page;
  const loaded = new Promise((done) => { frame.onload = done; });
  document.body.append(frame);
  await loaded;
  const shown = frame.contentDocument;
  await Promise.all([...shown.images].map((image) => {
    image.loading = "eager";
    return image.decode().catch(() => {});
  }));
  found[`${page} at ${width}`] = {
    overflow: shown.documentElement.scrollWidth - shown.documentElement.clientWidth,
    broken: [...shown.images].filter((i) => !i.naturalWidth).map((i) => i.getAttribute("src")),
    heading: shown.querySelector("h1")?.innerText ?? "",
  };
  frame.remove();
}
async function all(pages, widths) {
  for (const page of pages) for (const width of widths) await look(page, width);
  document.getElementById("found").textContent = JSON.stringify(found);
}
all(PAGES, WIDTHS);
</script>
"""


class Quiet(SimpleHTTPRequestHandler):
    """Serves the site, and the page that measures it."""

    def __init__(self, *arguments: object, page: str, **options: object) -> None:
        self.page = page.encode()
        super().__init__(*arguments, directory=str(SITE), **options)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        if self.path != "/measure":
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(self.page)
        return None

    def log_message(self, *_: object) -> None:
        pass


def measure(chromium: str) -> dict[str, dict[str, object]]:
    pages = sorted(f"/{path.relative_to(SITE)}" for path in SITE.rglob("index.html"))
    page = MEASURE.replace("PAGES", json.dumps(pages)).replace("WIDTHS", json.dumps(WIDTHS))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, page=page))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as profile:
        command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
        command += ["--disable-background-networking", "--disable-component-update"]
        command += ["--disable-sync", f"--user-data-dir={profile}", "--window-size=1400,1000"]
        command += ["--virtual-time-budget=120000", "--dump-dom"]
        address = f"http://127.0.0.1:{server.server_port}/measure"
        ended = subprocess.run([*command, address], capture_output=True, text=True, timeout=300)
    server.shutdown()
    (text,) = re.findall(r'<pre id="found">(.*?)</pre>', ended.stdout, re.DOTALL) or [""]
    found: dict[str, dict[str, object]] = json.loads(html.unescape(text) or "{}")
    if len(found) != len(pages) * len(WIDTHS):
        sys.exit(f"Chromium measured {len(found)} of {len(pages) * len(WIDTHS)}: {ended.stderr}")
    return found


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
