"""What mkdocs needs to know of this repository: generated pages, links to files outside docs/."""

import re
import sys
from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
sys.path.insert(0, str(ROOT))

from benchmarks.tables import README_RESULTS, all_results, readme_lines  # noqa: E402

LINK = re.compile(r"\[([^\]]*)\]\(([^)\s#]+)(#[^)]*)?\)")
SHOWN = {".html", ".json", ".png", ".svg", ".txt"}  # browsers show these; others are sent as text


def on_files(files, config):
    """Add the pages that other files of the repository make, and the files that pages link to."""
    for name, text in (
        ("benchmarks.md", filled("benchmarks.md", "every committed result", all_results())),
        ("index.md", filled("index.md", "the table of the README", speed())),
        ("cell-and-hidden.md", filled("cell-and-hidden.md", "what the states carry", states())),
        ("contributing.md", in_docs((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))),
        ("changelog.md", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")),
    ):
        present = files.get_file_from_path(name)
        if present:
            files.remove(present)
        files.append(File.generated(config, name, content=text))
    pages = [file for file in files if file.is_documentation_page()]
    for page in pages:
        for _, link, _ in LINK.findall(page.content_string):
            target = outside(page.src_uri, link)
            if target and target.is_file() and not files.get_file_from_path(site_path(target)):
                path = site_path(target)
                files.append(File.generated(config, path, content=target.read_bytes()))
    return files


def on_page_markdown(markdown, page, config, files):
    """Lead links that leave docs/ to the copies in the site, or to the repository's folders."""

    def led(match):
        target = outside(page.file.src_uri, match[2])
        if target is None:
            return match[0]
        if target.is_file():
            up = "../" * page.file.src_uri.count("/")
            return f"[{match[1]}]({up}{site_path(target)})"
        if not target.is_dir():
            raise PluginError(f"{page.file.src_uri}: {match[2]} leads nowhere")
        folder = target.relative_to(ROOT)
        if not config.repo_url:  # a site that knows no repository
            return match[1]
        return f"[{match[1]}]({config.repo_url.rstrip('/')}/tree/main/{folder})"

    return LINK.sub(led, markdown)


def filled(name, marker, text):
    """A page with `text` in place of its comment `marker`."""
    page = (DOCS / name).read_text(encoding="utf-8")
    if page.count(f"<!-- {marker} -->") != 1:
        raise PluginError(f"docs/{name} must have one comment <!-- {marker} -->")
    return page.replace(f"<!-- {marker} -->", text)


def speed():
    return "\n".join(readme_lines(README_RESULTS))


def states():
    """The second table of what `make memory` wrote: scores of the two states."""
    written = (ROOT / "benchmarks/results/memory/memory.md").read_text(encoding="utf-8")
    return written.split("\n\n")[1]


def outside(source, link):
    """The file or folder that a link of the page `source` means, if it is not in docs/."""
    if re.match(r"[a-z]+:", link):
        return None
    target = (DOCS / source).parent.joinpath(link).resolve()
    return None if target.is_relative_to(DOCS) or not target.is_relative_to(ROOT) else target


def site_path(target):
    """Where the site has its copy of a file."""
    suffix = "" if target.suffix in SHOWN else ".txt"
    return f"repository/{target.relative_to(ROOT)}{suffix}"


def in_docs(text):
    """A document of the repository's root with its links as from docs/."""

    def moved(match):
        link = match[2]
        if re.match(r"[a-z]+:", link):
            return match[0]
        link = link.removeprefix("docs/") if link.startswith("docs/") else f"../{link}"
        return f"[{match[1]}]({link}{match[3] or ''})"

    return LINK.sub(moved, text)
