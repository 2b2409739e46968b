"""Builds the wheel; all else is in ``pyproject.toml``."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithRecipes(build_py):
    """Brings the recipes along where Git wrote their link as a text file (Windows)."""

    def run(self) -> None:
        """Build."""
        super().run()
        if not self.editable_mode and Path("vmm/recipes").is_file():
            shutil.copytree("recipes", Path(self.build_lib, "vmm/recipes"))


setup(cmdclass={"build_py": WithRecipes})
