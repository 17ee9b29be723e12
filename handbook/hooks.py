"""What MkDocs calls while it builds the site."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from handbook import linked, maths, options

ROOT = Path(__file__).parents[1]
OPTIONS = "options.md"
SHIM = '<script src="https://unpkg.com/iframe-worker/shim"></script>'
"""By which the theme's offline plugin searches where there is no server: the one thing it does not bring along."""

_pages: dict[str, str] = {}  # path in the repository -> page on the site


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Draw formulas."""
    fences = config.mdx_configs.setdefault("pymdownx.superfences", {}).setdefault("custom_fences", [])
    fences.append({"name": "math", "class": "maths", "format": maths.fence})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page of all options, and one for each file or folder that a page links to beyond the pages."""
    files.append(File.generated(config, OPTIONS, content=options.page()))
    _pages.clear()
    for page in [file for file in files.documentation_pages() if file.src_uri != OPTIONS]:
        for target in linked.targets(page.content_string, f"docs/{page.src_uri}"):
            _pages.update(linked.places(target, ROOT))
    for target, place in _pages.items():
        files.append(File.generated(config, place, content=linked.page_of(target, ROOT)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Lead links to these."""
    return linked.rewritten(markdown, f"docs/{page.file.src_uri}", _pages)


def on_post_page(output: str, **_: Any) -> str:
    """Search by a script of our own."""
    return _without_network(output)


def on_post_template(output: str, **_: Any) -> str:
    """Do the same for the page of what is not found."""
    return _without_network(output)


def _without_network(output: str) -> str:
    return output.replace(SHIM, f"<script>{(ROOT / 'handbook/worker.js').read_text(encoding='utf-8')}</script>")
