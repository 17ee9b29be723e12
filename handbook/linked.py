"""Pages for what the documentation links to and a site does not show by itself: files outside docs/, and folders."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

_LINK = re.compile(r"(?<!!)(\[[^\]\[]*\]\()([^)#\s]+)(#[^)\s]*)?\)")
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".md": "markdown", ".jsonl": "json", ".json": "json"}


def targets(markdown: str, page: str) -> Iterator[str]:
    """What a page links to in the repository, from its root.

    Args:
        markdown: The page's text.
        page: Its path from the repository's root.
    """
    for match in _LINK.finditer(markdown):
        if "://" not in match[2]:
            yield posixpath.normpath(posixpath.join(posixpath.dirname(page), match[2]))


def rewritten(markdown: str, page: str, pages: Mapping[str, str]) -> str:
    """A page with its links to `pages` where these stand on the site.

    Args:
        markdown: The page's text.
        page: Its path from the repository's root.
        pages: Path in the repository -> page on the site.
    """

    def moved(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page), match[2]))
        if "://" in match[2] or target not in pages:
            return match[0]
        here = posixpath.dirname(posixpath.relpath(page, "docs"))
        return f"{match[1]}{posixpath.relpath(pages[target], here or '.')}{match[3] or ''})"

    return _LINK.sub(moved, markdown)


def places(target: str, root: Path) -> dict[str, str]:
    """Where the pages for a file, or a folder and its files, stand on the site; none for what is there by itself."""
    path = root / target
    inside = target.startswith("docs/")
    if path.is_dir() and inside:
        return {target: f"{target.removeprefix('docs/')}/index.md"}
    if path.is_dir():
        files = [f"{target}/{entry.name}" for entry in _files(path)]
        return {target: f"files/{target}/index.md", **{file: f"files/{file}.md" for file in files}}
    return {target: f"files/{target}.md"} if path.is_file() and not inside else {}


def page_of(target: str, root: Path) -> str:
    """The page for a file or folder of the repository: what it holds."""
    path = root / target
    if path.is_dir():
        return f"# {target}\n\n" + "\n".join(_entries(path, "" if target.startswith("docs/") else ".md"))
    text = path.read_text(encoding="utf-8")
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"# {target}\n\n{fence}{_LANGUAGES.get(path.suffix, 'text')}\n{text.rstrip()}\n{fence}\n"


def _entries(folder: Path, ending: str) -> Iterator[str]:
    for entry in _files(folder):
        if entry.suffix == ".svg":
            yield f"\n![{entry.stem}]({entry.name})\n"
        else:
            yield f"- [{entry.name}]({entry.name}{ending})"


def _files(folder: Path) -> list[Path]:
    return sorted((entry for entry in folder.iterdir() if entry.is_file()), key=lambda e: (e.suffix == ".svg", e.name))
