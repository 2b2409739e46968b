"""Commands and Python of the README and the pages: what can be run, what not and why."""

import ast
import re
import shlex
from typing import NamedTuple

REASONS = {
    "hub": "needs weights, tokenizers or packages from the network",
    "gpu": "needs several GPUs or machines",
    "own files": "needs files that only the reader has",
    "install": "installs packages",
    "minutes": "takes minutes; tests/integration/test_demo.py runs the same steps",
    "server": "does not end",
}
"""Word of a mark ``<!-- not run: WORD -->`` before a block -> what it means."""
OWN_TESTS = {"docs/guides/own_clips.md": "tests/guides/test_own_clips.py"}
"""Pages whose commands a test of their own runs, in a folder of their own."""
# Later pages use what earlier ones have made.
ORDER = [
    *("README.md", "docs/quickstart.md", "docs/guides/scale.md", "docs/guides/evaluation.md"),
    *("docs/guides/published.md", "docs/guides/classification.md", "docs/guides/data.md"),
    *("docs/guides/export.md", "docs/guides/search.md"),
    *("docs/guides/search_outputs.md", "docs/guides/clip.md", "docs/guides/training.md"),
    "docs/guides/long_videos.md",
]
_BLOCK = re.compile(
    r"(?:<!-- not run: ([a-z ]+) -->\n)?^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE
)
_DEBUG = ["-c", "overlays/debug.yaml"]


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str
    kind: str
    text: str
    mark: str
    """Why it is not run; empty where it is."""

    @property
    def commands(self):
        """The lines of a block of commands."""
        return [line for line in self.text.splitlines() if line.strip()]


def pages(root):
    """Name all pages, in the order of a reader who goes on where the page before ended."""
    found = [
        "README.md",
        *(p.relative_to(root).as_posix() for p in sorted(root.glob("docs/**/*.md"))),
    ]
    found = [page for page in found if page not in OWN_TESTS]
    return [*ORDER, *(page for page in found if page not in ORDER)]


def blocks(root, page):
    """Read the fenced blocks of a page."""
    text = (root / page).read_text(encoding="utf-8")
    return [Block(page, kind, body, mark) for mark, kind, body in _BLOCK.findall(text)]


def all_blocks(root):
    """Read the blocks of all pages."""
    return [block for page in pages(root) for block in blocks(root, page)]


def small(command):
    """Give the words after ``vmm`` of a command, shrunk to two steps on a few clips."""
    words = shlex.split(command)
    assert words[0] == "vmm", f"no test can run this; mark it with a reason: {command}"
    words = words[1:]
    if words[0] in ("fit", "validate", "predict", "test"):
        last = max(i for i, word in enumerate(words) if word == "-c")
        words[last + 2 : last + 2] = _DEBUG
        if "--data.init_args.batch_size" in words:
            words[words.index("--data.init_args.batch_size") + 1] = "8"
            words[words.index("--model.init_args.micro_batch") + 1] = "4"
    if words[:2] == ["shards", "demo"]:
        words += ["--train", "48", "--val", "16", "--test", "16", "--images", "16"]
    return words


def run_python(code, space):
    """Run a block; where its last line names shapes in a comment, compare them."""
    tree = ast.parse(code)
    said = code.strip().splitlines()[-1].partition("#")[2].strip()
    last = tree.body.pop() if said and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<block>", "exec"), space)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), "<block>", "eval"), space)
        shapes = ", ".join(
            str(tuple(x)) for x in (value if isinstance(value[0], tuple) else [value])
        )
        assert shapes == said, f"{code} gives {shapes}"
