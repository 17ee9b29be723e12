"""Packs the configs, which stand at the repository's top level, into the package; all else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithConfigs(build_py):
    """Copies `configs` to `opcod/configs` of what is built; an editable installation reads them where they are."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            shutil.copytree("configs", Path(self.build_lib) / "opcod" / "configs", dirs_exist_ok=True)


setup(cmdclass={"build_py": WithConfigs})
