"""What MkDocs asks for before it builds: the pages and pictures that are made of the code.

Nothing of vmm that needs torch is imported, and nothing is fetched.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import pictures  # noqa: E402
import references  # noqa: E402

_FETCHED = "https://unpkg.com/iframe-worker/shim"
_OWN_CLIPS = "guides/own_clips.md"
_BENCHMARKS = ROOT / "benchmarks/results"
_DRILLS = ROOT / "tests/stress/results"
_INLINE_CODE = re.compile(r"(?<=<code>)[^<]{12,}(?=</code>)")
_PART = re.compile(r"([/._:=])(?=\w)")
_GPU = re.compile(r"_nvidia|_amd-(instinct|radeon)")


def on_config(config: Any) -> Any:
    """Put the guide for clips of one's own before the other guides, as soon as it is there."""
    if (ROOT / "docs" / _OWN_CLIPS).is_file():
        (guides,) = (entry["Guides"] for entry in config.nav if "Guides" in entry)
        guides.insert(0, {"Your own clips": _OWN_CLIPS})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add what is made, beside what is written."""
    made = {
        "reference/commands.md": references.commands(),
        "reference/recipes.md": references.recipes(),
    }
    made |= {f"pictures/{name}.svg": drawn for name, drawn in pictures.all_pictures().items()}
    for name in ("CONTRIBUTING.md", "CHANGELOG.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        made[name.lower()] = text.replace("](docs/", "](")  # on the site they stand inside of it
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    for path in (ROOT / "assets").glob("*.png"):
        files.append(File.generated(config, f"pictures/{path.name}", abs_src_path=str(path)))
    titles = {}
    for name, page in measured().items():
        titles[f"{name}.md"] = page.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        files.append(File.generated(config, f"measured/{name}.md", abs_src_path=str(page)))
        picture = page.with_suffix(".png")
        if picture.exists():
            where = f"measured/{picture.name}"
            files.append(File.generated(config, where, abs_src_path=str(picture)))
    files.append(File.generated(config, "measured/index.md", content=_listed(titles)))
    return files


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Load nothing from elsewhere, and say where lines may end.

    The theme would fetch what lets the search run from a folder, and break long names in code
    inside of a word, and numbers before their error.
    """
    up = "../" * page.url.count("/")
    parted = _INLINE_CODE.sub(lambda code: _PART.sub(r"\1<wbr>", code[0]), output)
    parted = parted.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")
    return parted.replace(_FETCHED, f"{up}javascripts/file_worker.js")


def on_post_template(output_content: str, template_name: str, config: Any) -> str:
    """Do the same to the page for what is not there."""
    return output_content.replace(_FETCHED, "javascripts/file_worker.js")


def measured() -> dict[str, Path]:
    """Find the newest page of every benchmark and drill, a whole one rather than a short one."""
    pages: dict[str, Path] = {}
    for folder, before in ((_BENCHMARKS, ""), (_DRILLS, "drill_")):
        for path in sorted(folder.glob("*.md"), key=_weight):
            what = re.split(r"_amd|_intel|_nvidia|_\d{4}", path.stem)[0]
            gpu = _GPU.search(path.stem) is not None and what != "gpu"
            pages[before + what + "_gpu" * gpu] = path
    return pages


def _weight(path: Path) -> tuple[bool, str]:
    found = re.search(r"\d{4}-\d\d-\d\d", path.name)
    return not path.stem.endswith("_short"), found[0] if found else ""


def _listed(titles: dict[str, str]) -> str:
    lines = ["# Measurements", "", "Each as it was written, with date, hardware and versions.", ""]
    return "\n".join([*lines, *(f"- [{title}]({name})" for name, title in titles.items())]) + "\n"
