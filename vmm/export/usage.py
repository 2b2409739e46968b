"""The lines of Python in a model card: how the files beside it are loaded, by their format.

A card that people have edited keeps their words; only the block that names ``PLACE`` is of vmm, and
is exchanged when the same model is written in another format.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vmm.models.text_interface import Reading

PLACE = "THIS FOLDER"
"""What a block names in the place of the folder's path."""
UNKNOWN_LICENSE = "unknown"
"""What the card says of the weights' licence where nobody said another."""

ENCODER = """\
from vmm import VideoTextEncoder

encoder = VideoTextEncoder.from_pretrained("THIS FOLDER")
similarity = encoder.encode_text(["a caption"]) @ encoder.encode_video(["clip.mp4"]).T"""

CLASSIFIER = """\
from vmm import ActionClassifier

classifier = ActionClassifier.from_pretrained("THIS FOLDER")
(best, probability), *others = classifier.classify(["clip.mp4"])[0]"""

DUAL_ENCODER = """\
from sentence_transformers import SentenceTransformer

# trust_remote_code runs the installed vmm; there is no code in the folder.
model = SentenceTransformer("THIS FOLDER", trust_remote_code=True)
similarity = model.similarity(model.encode(["a caption"]), model.encode(["clip.mp4"]))"""

CROSS_ENCODER = """\
from sentence_transformers import CrossEncoder

# trust_remote_code runs the installed vmm; there is no code in the folder.
model = CrossEncoder("THIS FOLDER", trust_remote_code=True)
ranked = model.rank("a caption", ["clip.mp4"])"""

_GRAPH = """\
from pathlib import Path

{imports}
from vmm.export.folder import read_preprocessing
from vmm.export.frames import load_clip

folder = Path("THIS FOLDER")
clip = read_preprocessing(folder).with_frames({frames})  # a file for each number of frames
video = load_clip("clip.mp4", 0, clip)[None]
{run_video}"""

_READ = {
    "tokenizers": """

from tokenizers import Tokenizer

words = Tokenizer.from_file(str(folder / "tokenizer.json")).encode("a caption")
ids, mask = ({number}([x]) for x in (words.ids, words.attention_mask))
""",
    "open_clip": """

import torch
from vmm.models.open_clip_text import OpenClipTextEncoder

with torch.device("meta"):  # it only reads captions here, so it needs no weights
    reader = OpenClipTextEncoder(
        1, str(folder / "open_clip_config.json"), max_words={words}, tokenizer=str(folder)
    )
ids, mask = {numbers}
""",
}
_TEXT = """\
{run_text}
similarity = texts @ videos.T"""


def graph_usage(
    format_name: str, frames: int, classifies: bool, reading: Reading | None, words: int
) -> str:
    """Write the lines that load graphs.

    Args:
        format_name: ``onnx`` or ``pt2``.
        frames: Number of frames of one of the files.
        classifies: Whether the model is a classifier.
        reading: How captions become tokens; None = nothing is said of captions.
        words: Tokens of a caption, at most.
    """
    result = "logits" if classifies else "videos"
    if format_name == "onnx":
        imports = "import numpy as np\nimport onnxruntime\n"
        run = "{0} = onnxruntime.InferenceSession(folder / {1}).run(None, {2})[0]"
        video = run.format(result, f'"video_{frames}_frames.onnx"', '{"video": video.numpy()}')
        text = run.format("texts", '"text.onnx"', '{"input_ids": ids, "attention_mask": mask}')
        number, read = "np.array", '(x.numpy() for x in reader.tokenize(["a caption"]))'
    else:
        imports = "import torch\nimport vmm.ops.conv.causal_conv, vmm.ops.scan.bidirectional\n"
        run = "{0} = torch.export.load(folder / {1}).module()({2}).detach()"
        video = run.format(result, f'"video_{frames}_frames.pt2"', "video")
        text, number = run.format("texts", '"text.pt2"', "ids, mask"), "torch.tensor"
        read = 'reader.tokenize(["a caption"])'
    code = _GRAPH.format(imports=imports, frames=frames, run_video=video)
    if reading is not None:
        code += _READ[reading].format(number=number, numbers=read, words=words)
        code += _TEXT.format(run_text=text)
    return code


def with_usage(card: str, code: str) -> str:
    """Put the lines that load a format into a card, in the place of those of another format.

    Args:
        card: The card; one without such a block gets a section at its end.
        code: Python, which names ``PLACE``.
    """
    block = f"```python\n{code}\n```"
    for found in re.finditer(r"^```python\n.*?^```$", card, re.DOTALL | re.MULTILINE):
        if f'"{PLACE}"' in found[0]:
            return card[: found.start()] + block + card[found.end() :]
    return f"{card.rstrip()}\n\n## Use\n\n{block}\n".lstrip()
