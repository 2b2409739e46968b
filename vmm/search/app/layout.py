"""How the page looks, and what its buttons do."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import gradio
import pandas

from vmm.command_line import sentence
from vmm.search.app.actions import Found
from vmm.search.app.examples import example_queries
from vmm.search.app.favourites import KINDS
from vmm.search.app.page import STEP, Page
from vmm.search.app.words import heading, mistake, status
from vmm.search.find import RERANKED
from vmm.text_output import visible

# On a phone two columns, on a screen as many as there is room for; what is said of a film stands
# under it, all of it. A film that is looked at has most of the window: Gradio lays it over the
# others, as high as they happen to be, and the row of small ones over what is said of it.
STYLE = """
.films .grid-container {
  grid-template: none / repeat(auto-fill, minmax(min(150px, calc(50% - 8px)), 1fr));
  grid-auto-rows: auto}
.films .thumbnail-lg {aspect-ratio: auto; height: auto; display: flex; flex-direction: column}
.films .thumbnail-lg video {aspect-ratio: 4 / 3; height: auto; background: #000;
  object-fit: contain}
.films .thumbnail-lg .caption-label {position: static; max-width: 100%; width: 100%; border: 0;
  white-space: pre-line; overflow-wrap: anywhere; text-overflow: clip; opacity: 1}
.films .caption {white-space: pre-line; overflow-wrap: anywhere}
.films .grid-wrap {overflow-y: auto; min-height: 0; max-height: none; padding-top: 2.2rem}
.films .gallery-container:has(.preview) .grid-wrap {height: min(70vh, 640px); overflow: hidden}
.films .preview .media-button {flex: 1; min-height: 0}
.films .preview .caption {margin-bottom: 4rem}
/* What is under way is marked here, before anything has been said. */
#said, #answer {min-height: 4.5rem}
[role=alert] {border-left: 4px solid #dc2626; padding-left: .6rem; overflow-wrap: anywhere}
.kept label {width: 100%; overflow-wrap: anywhere}
h1 {font-size: 1.4rem; font-weight: 600}
:focus-visible {outline: 3px solid #4f46e5 !important; outline-offset: 2px}
"""
# Outside of what Gradio lets STYLE reach.
HEAD = (
    "<style>@media (max-width: 480px) {.gradio-container > .main {padding: 8px !important}}</style>"
)
# Screen readers would hear "Thumbnail 1 of 12".
SCRIPT = """() => {
  const name = () => document.querySelectorAll(".films .thumbnail-lg").forEach(button => {
    const said = button.querySelector(".caption-label")?.innerText
    if (said && button.getAttribute("aria-label") != said) button.setAttribute("aria-label", said)
  })
  new MutationObserver(name).observe(document.body, {childList: true, subtree: true})
}"""
# On a phone what is said of a search is below what the window shows.
_TO_WHAT_IS_SAID = "() => document.getElementById('%s').scrollIntoView({block: 'nearest'})"
_AGAIN = [("no", ""), ("by both scores", "mixture"), ("by matching alone", "matching")]

_Keep = tuple[gradio.State, gradio.State, list[gradio.Button]]
"""What was found, which of it is selected, and the buttons that keep it."""


def layout(page: Page) -> gradio.Blocks:
    """Put the page together."""
    about = page.actions.about()
    title = visible(f"{about['index']} - vmm search")
    # What is shown is kept for an hour.
    with gradio.Blocks(title=title, analytics_enabled=False, delete_cache=(600, 3600)) as blocks:
        gradio.HTML(heading(about))
        favourites = gradio.State([])
        with gradio.Tab("Search"):
            keep, said = _search_tab(page)
        with gradio.Tab("Ask a video"):
            _ask_tab(page)
        with gradio.Tab("Favourites", render_children=True):
            _favourites_tab(page, favourites, keep, said)
    return blocks


def _search_tab(page: Page) -> tuple[_Keep, gradio.HTML]:
    """Return what can be kept, and where something is said of it."""
    found, number = gradio.State(None), gradio.State(0)
    with gradio.Row():
        with gradio.Column(scale=3, min_width=280):
            text = gradio.Textbox(
                label="What to look for", elem_id="text", autofocus=True, lines=1, max_lines=1
            )
            search = gradio.Button("Search", variant="primary", elem_id="search")
            examples = _examples(page, text)
        with gradio.Column(scale=2, min_width=280):
            clip = _upload("Or like this clip, or like both", "clip", 200)
    with gradio.Accordion("Filters, number of moments, second look", open=False):
        given = [text, clip, *_filters(page)]
    said = gradio.HTML(elem_id="said")
    with gradio.Column(visible=False) as results:
        films = _films("Moments, the best first", "films")
        with gradio.Row():
            more = gradio.Button("More moments", interactive=False, elem_id="more", min_width=180)
            keep_one = gradio.Button(
                "Keep the selected moment", interactive=False, elem_id="keep", min_width=180
            )
            keep_all = gradio.Button(
                "Keep all that are shown", interactive=False, elem_id="keep-all", min_width=180
            )
        with gradio.Row():
            about = gradio.Textbox(
                label="Selected moment", lines=5, interactive=False, elem_id="about", min_width=280
            )
            curve = _curve("Similarity over time in its video", "curve")
    shown = [films, found, number, curve, about, said]
    buttons = [more, keep_one, keep_all]

    def inspect(state: Found, event: gradio.SelectData) -> tuple[int, pandas.DataFrame | None, str]:
        return event.index, *page.inspect(state, event.index)

    begin = [text.submit, search.click]
    if examples is not None:
        chosen = examples.click(lambda row: row[0], [examples], [text], api_visibility="private")
        begin.append(chosen.then)
    for event in begin:
        _on(event, page.find, given, shown, said, results).then(
            page.may_go_on, [found], buttons, api_visibility="private"
        ).then(None, js=_TO_WHAT_IS_SAID % "said", api_visibility="private")
    _on(more.click, page.more, [found], shown, said).then(
        page.may_go_on, [found], buttons, api_visibility="private"
    )
    _on(films.select, inspect, [found], [number, curve, about], said)
    _api(page.search, given, "search")
    return (found, number, [keep_one, keep_all]), said


def _filters(page: Page) -> list[gradio.components.Component]:
    """Return what limits a search, in the order in which ``Page.find`` takes it."""
    with gradio.Row():
        top = gradio.Slider(1, 60, STEP, step=1, label="Moments", min_width=200)
        again = gradio.Radio(
            _AGAIN, value="", label=f"Look at the best {RERANKED} again (matching head)",
            visible=page.actions.looks_again, min_width=260,
        )  # fmt: skip
    folder = gradio.Textbox(
        label="Only in the folder, shard or video",
        info="A path, or whole names from one: 2024/may. * and ? stand for characters: *cat*.",
        elem_id="folder", max_lines=1,
    )  # fmt: skip
    gradio.Markdown("Seconds; 0 sets no limit.")
    with gradio.Row():
        limits = [
            gradio.Number(value=0, label=label, minimum=0, min_width=150, elem_id=name)
            for name, label in (
                ("after", "After this time in the video"), ("before", "Before this time"),
                ("min-duration", "Videos at least as long"),
                ("max-duration", "Videos at most as long"),
            )
        ]  # fmt: skip
    return [top, again, folder, *limits]


def _examples(page: Page, text: gradio.Textbox) -> gradio.Dataset | None:
    """Show captions of the index to click on, if it has any."""
    queries = example_queries(page.actions.searcher)
    if not queries:
        gradio.Markdown(
            "The index holds no captions to take examples from. Say in a sentence what is to be "
            "seen, as the captions did that the model was trained with."
        )
        return None
    examples = gradio.Dataset(
        components=[text], samples=[[visible(query)] for query in queries],
        label="Examples: captions of what the index holds", elem_id="examples",
    )  # fmt: skip
    return examples


def _ask_tab(page: Page) -> None:
    settings = page.actions.searcher.index.settings
    what = "shots of at most " if settings.shots else ""
    longest = f"{what}{settings.window:g} s"
    with gradio.Row():
        video = _upload("Video to look through", "own", 260)
        with gradio.Column(min_width=280):
            question = gradio.Textbox(
                label="What to look for in it", elem_id="question", lines=1, max_lines=1
            )
            window = gradio.Number(
                value=0, minimum=0, label="Length of a moment (seconds)", elem_id="window",
                info=f"0 stands for {longest}, or a quarter of the video if that is shorter.",
            )  # fmt: skip
            top = gradio.Slider(1, 30, 3, step=1, label="Moments")
            ask = gradio.Button("Ask", variant="primary", elem_id="ask")
    said = gradio.HTML(elem_id="answer")
    with gradio.Column(visible=False) as results:
        best = _films("Best moments", "best")
        relevance = _curve("Similarity over time", "relevance")
    given = [video, question, window, top]
    for event in (question.submit, ask.click):
        _on(event, page.ask, given, [best, relevance, said], said, results).then(
            None, js=_TO_WHAT_IS_SAID % "answer", api_visibility="private"
        )
    _api(page.ask_api, given, "ask")


def _favourites_tab(
    page: Page,
    favourites: gradio.State,
    keep: _Keep,
    beside: gradio.HTML,
) -> None:
    found, number, (keep_one, keep_all) = keep
    said = gradio.HTML(status("Moments that you keep in the tab Search."), elem_id="kept-said")
    listed = gradio.CheckboxGroup(
        [], label="Kept moments; check those to remove", type="index", elem_id="kept",
        elem_classes="kept",
    )  # fmt: skip
    remove = gradio.Button("Remove the checked", interactive=False, elem_id="remove")
    gradio.Markdown(
        "CSV and JSON have all that is known of them, for tables and programs; EDL is for video "
        "editors, VTT for players: chapters of each video."
    )
    with gradio.Row():
        files = [
            gradio.DownloadButton(
                f"Download {kind[1:].upper()}", interactive=False, elem_id=f"download-{kind[1:]}",
                min_width=140,
            )
            for kind in KINDS
        ]  # fmt: skip
    shown = [favourites, listed, said, remove, *files]
    _on(keep_one.click, page.keep_one, [favourites, found, number], [*shown, beside], beside)
    _on(keep_all.click, page.keep_all, [favourites, found], [*shown, beside], beside)
    _on(remove.click, page.remove, [favourites, listed], shown, said)


_P = ParamSpec("_P")
_T = TypeVar("_T")


def told(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Turn mistakes into Gradio's own, for its client; it would print a traceback of others."""

    @wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return function(*args, **kwargs)
        except (ValueError, OSError) as error:
            said = visible(sentence(error))
            raise gradio.Error(said, title="", print_exception=False) from error

    return call


def _on(
    event: Any,
    function: Callable[..., Any],
    given: Any,
    shown: Any,
    said: gradio.HTML,
    results: gradio.Column | None = None,
) -> Any:
    """Let an event do something; Gradio marks ``said`` alone while it lasts.

    A mistake stands there until something else is done; Gradio's own message goes away after
    seconds, or would cover the page. Nothing stands empty: ``results`` are seen while the first of
    ``shown`` has something, a curve while there is one.
    """
    beside = said not in shown
    outputs = [*shown, *([said] if beside else []), *([] if results is None else [results])]

    @wraps(function)
    def call(*values: Any) -> Any:
        try:
            result = function(*values)
        except (ValueError, OSError) as error:
            return {said: mistake(sentence(error))}
        seen = [_seen(*pair) for pair in zip(shown, result, strict=True)]
        seen += [gradio.skip()] if beside else []
        return seen if results is None else [*seen, gradio.update(visible=bool(result[0]))]

    return event(
        call,
        given,
        outputs,
        api_visibility="private",
        show_progress_on=said,
    )


def _seen(component: Any, value: Any) -> Any:
    """Let a curve be seen if there is one, and give the values of others as they are."""
    if not isinstance(component, gradio.LinePlot):
        return value
    return gradio.update(value=value, visible=value is not None)


def _api(function: Callable[..., Any], given: list[Any], name: str) -> None:
    """Offer a function to Gradio's client: no button that anybody sees has it."""
    hidden = gradio.Button(visible=False)
    hidden.click(told(function), given, gradio.JSON(visible=False), api_name=name)


def _upload(label: str, name: str, height: int) -> gradio.Video:
    return gradio.Video(
        label=label, sources=["upload"], height=height, elem_id=name, min_width=280, buttons=[]
    )


def _films(label: str, name: str) -> gradio.Gallery:
    return gradio.Gallery(
        label=label, columns=4, height="auto", buttons=[], elem_id=name, elem_classes="films",
        interactive=False,
    )  # fmt: skip


def _curve(label: str, name: str) -> gradio.LinePlot:
    return gradio.LinePlot(
        x="seconds", y="similarity", label=label, height=240, buttons=[], elem_id=name,
        min_width=280,
    )  # fmt: skip
