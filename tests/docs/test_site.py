"""The documentation is built without warnings, loads nothing from elsewhere and can be read."""

import os
import subprocess
import sys

import pytest

from vmm.command_line import MISTAKE, PARTLY
from vmm.ctrl_c import STOPPED

SLOW = (
    "import sys; from mkdocs.__main__ import cli; cli(standalone_mode=False); print(*sys.modules)"
)


@pytest.fixture(scope="module")
def site(root, tmp_path_factory):
    """The site, as ``make docs`` builds it; what was imported for it stands in ``modules.txt``."""
    folder = tmp_path_factory.mktemp("docs")
    words = ["build", "--strict", "--site-dir", str(folder / "site")]
    done = subprocess.run(
        [sys.executable, "-c", SLOW, *words],
        cwd=root,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (folder / "modules.txt").write_text(done.stdout.splitlines()[-1])
    return folder / "site"


@pytest.mark.slow
def test_it_builds_without_torch_and_loads_nothing_from_elsewhere(site):
    modules = (site.parent / "modules.txt").read_text().split()
    assert "griffe" in modules and not {"torch", "lightning", "transformers"} & set(modules)
    pages = [*site.rglob("*.html")]
    assert len(pages) > 30
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for tag in ('<script src="http', '<img src="http', "fonts.googleapis", "unpkg.com"):
            assert tag not in text, f"{page.name}: {tag}"


@pytest.mark.slow
def test_references_have_what_the_code_has(site):
    recipes = (site / "reference/recipes.html").read_text(encoding="utf-8").replace("<wbr>", "")
    for setting in ("proj_dim", "micro_batch", "scan_order", "isolate_decode", "max_in_a_row"):
        assert f"<code>{setting}</code>" in recipes
    assert "overlays/sigmoid.yaml" in recipes
    commands = (site / "reference/commands.html").read_text(encoding="utf-8")
    assert "vmm shards inspect" in commands
    for status, about in ((PARTLY, "it is done in part"), (MISTAKE, "a mista"), (STOPPED, "stop")):
        assert f"<td>{status}</td>\n<td>{about}" in commands
    use = (site / "reference/api/use.html").read_text(encoding="utf-8")
    assert 'id="vmm.export.encoder.VideoTextEncoder.encode_video"' in use


def test_pages_can_be_read_and_searched_from_a_folder(site, look_at):
    for name in ("index", "how/scan_orders", "reference/recipes", "guides/training"):
        look_at(site / f"{name}.html")


BROKEN = r"""(() => {
  const broken = []
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  for (let text; text = texts.nextNode();) {
    if (!text.parentElement.closest("td")) continue
    for (const word of text.data.matchAll(/\p{L}+/gu)) {
      const range = document.createRange()
      range.setStart(text, word.index)
      range.setEnd(text, word.index + word[0].length)
      const lines = new Set([...range.getClientRects()].map(r => Math.round(r.top)))
      if (lines.size > 1) broken.push(word[0])
    }
  }
  return broken
})()"""


def test_no_word_of_a_table_is_broken_on_a_telephone_and_wide_ones_show_it(
    site, chromium, tmp_path
):
    from tests.browser import Browser

    browser = Browser(chromium, tmp_path, 390, 900)
    try:
        for page in ("reference/commands", "reference/recipes", "how/one_batch", "guides/data"):
            browser.show(site / f"{page}.html")
            assert browser.evaluate("document.querySelectorAll('td code').length") > 5
            assert browser.evaluate(BROKEN) == [], page
            if page == "how/one_batch":  # names of modules end lines at their dots
                assert browser.evaluate("document.querySelector('table').offsetWidth") < 375
        browser.show(site / "results.html")
        wide = "[...document.querySelectorAll('.md-typeset__scrollwrap')]"
        wide += ".filter(t => t.scrollWidth > t.clientWidth)"
        shown = "t => getComputedStyle(t).backgroundAttachment.includes('local')"
        assert browser.evaluate(f"{wide}.length > 0 && {wide}.every({shown})")
        assert "±" in browser.evaluate("document.body.innerText")
        assert " ± " not in browser.evaluate("document.body.innerText")
    finally:
        browser.close()


def test_the_search_works_without_a_server(site, chromium, tmp_path):
    from tests.browser import Browser

    browser = Browser(chromium, tmp_path, 1280, 900)
    try:
        browser.show(site / "guides/search.html")
        browser.click("[data-md-toggle=search]")
        browser.type_into(".md-search__input", "micro_batch")
        browser.wait_for("document.querySelectorAll('.md-search-result__link').length > 1")
        assert browser.errors == []
    finally:
        browser.close()
