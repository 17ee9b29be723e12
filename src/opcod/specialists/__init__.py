"""The shipped specialists: LoRA adapters of the bundled base, one a domain, each with its model card."""

from __future__ import annotations

from pathlib import Path

from opcod.models import ModelError

_HERE = Path(__file__).parent


def shipped() -> list[str]:
    """The names of the shipped specialists."""
    return sorted(p.parent.name for p in _HERE.glob("*/adapter_config.json"))


def adapter_folder(name: str) -> Path:
    """The folder of an adapter: a shipped specialist's by its name, otherwise `name` itself.

    Raises:
        ModelError: If it is neither.
    """
    if name in shipped():
        return _HERE / name
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise ModelError(
            f"there is no adapter {name!r}: give a folder that holds one, or a shipped specialist "
            f"({', '.join(shipped()) or 'none is shipped; make them with `make specialists`'})."
        )
    return folder
