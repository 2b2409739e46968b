import shutil
import subprocess

import pytest

from vmm import completion
from vmm.cli import COMMANDS, GROUPS, TRAINER_COMMANDS, main
from vmm.command_line import CommandParser

COMPLETE = """
source {script}
try() {{
  COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
  $(complete -p vmm | sed 's/.*-F \\([^ ]*\\).*/\\1/') vmm
  echo "${{COMPREPLY[@]}}"
}}
"""

# A terminal within zsh, in which the tabulator key is pressed; it ends once the word is seen.
ZSH = """
zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z "PS1= PROMPT=; cd '{folder}'; fpath=('{folder}' \\$fpath); autoload -Uz compinit"
zpty -w z "compinit -D -u; echo REA''DY"
zpty -r -m z seen '*READY*'
zpty -w -n z '{typed}'$'\\t\\t'
zpty -r -m z seen '*{word}*' || exit 1
zpty -d z
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of what the command prints, under the names by which the shells find them."""
    folder = tmp_path_factory.mktemp("completion")
    for shell, name in {"bash": "vmm", "zsh": "_vmm", "fish": "vmm.fish"}.items():
        (folder / name).write_text(completion.script(shell))
    return folder


@pytest.fixture(scope="module")
def script(folder):
    """That for bash."""
    return folder / "vmm"


@pytest.fixture
def complete(script, tmp_path):
    """Press the tabulator key after some words, in a folder with a recipe of one's own."""
    (tmp_path / "mine.yaml").touch()

    def complete(*words):
        typed = " ".join(f"'{word}'" for word in words)
        code = f"{COMPLETE.format(script=script)}\ntry {typed}\n"
        done = subprocess.run(["bash", "-c", code], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0 and not done.stderr, done.stderr
        return done.stdout.split()

    return complete


def test_commands_of_one_and_two_words(complete):
    assert set(complete("vmm", "")) == {*TRAINER_COMMANDS, *COMMANDS, *GROUPS}
    assert complete("vmm", "eval", "lo") == ["long-video-qa"]
    assert set(complete("vmm", "shards", "")) == set(GROUPS["shards"])


def test_options_and_their_words(complete):
    assert complete("vmm", "eval", "retrieval", "--frame-o") == ["--frame-order"]
    assert complete("vmm", "eval", "retrieval", "--frame-order", "r") == ["reversed"]
    assert complete("vmm", "completion", "z") == ["zsh"]


def test_recipes_of_vmm_and_of_the_working_folder(complete):
    assert complete("vmm", "fit", "stage2") == ["stage2_vtt.yaml"]
    assert complete("vmm", "fit", "-c", "overlays/em") == ["overlays/ema.yaml"]
    assert complete("vmm", "validate", "mi") == ["mine.yaml"]


def test_settings(complete):
    assert complete("vmm", "fit", "--model.proj") == ["--model.proj_dim"]
    assert complete("vmm", "fit", "--data.batch") == ["--data.batch_size"]
    assert "--ema.decay" in complete("vmm", "fit", "--ema.")
    assert "--resume" in complete("vmm", "fit", "--res")


def test_the_summary_takes_what_a_fit_takes(complete):
    assert complete("vmm", "summary", "stage2") == ["stage2_vtt.yaml"]
    assert complete("vmm", "summary", "--data.batch") == ["--data.batch_size"]
    assert complete("vmm", "summary", "--js") == ["--json"]


@pytest.mark.skipif(not shutil.which("fish"), reason="needs fish")
@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("vmm eval lo", ["long-video-qa"]),
        ("vmm eval retrieval --frame-order ", ["forward", "reversed"]),
        ("vmm fit stage2", ["stage2_vtt.yaml"]),
        ("vmm fit mi", ["mine.yaml"]),
        ("vmm summary --data.batch", ["--data.batch_size"]),
    ],
)
def test_fish_completes(folder, tmp_path, typed, found):
    (tmp_path / "mine.yaml").touch()
    code = f"source {folder}/vmm.fish; complete -C '{typed}'"
    done = subprocess.run(["fish", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert [line.partition("\t")[0] for line in done.stdout.splitlines()] == found, done.stderr


@pytest.mark.skipif(not shutil.which("zsh"), reason="needs zsh")
@pytest.mark.parametrize(
    ("typed", "word"),
    [
        ("vmm eval lo", "long-video-qa"),
        ("vmm eval retrieval --frame-order ", "reversed"),
        ("vmm fit stage2", "stage2_vtt.yaml"),
        ("vmm summary --data.batch", "--data.batch_size"),
    ],
)
def test_zsh_completes(folder, typed, word):
    code = ZSH.format(folder=folder, typed=typed, word=word)
    subprocess.run(["zsh", "-f", "-c", code], check=True, timeout=60, capture_output=True)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_theirs(shell, capsys):
    parse = CommandParser.parse_args
    assert main(["completion", shell]) == 0
    said = capsys.readouterr().out
    assert "long-video-qa" in said and "model.proj_dim" in said
    assert CommandParser.parse_args is parse


def test_the_wait_is_told_before_it_begins(monkeypatch, capsys):
    def script(shell):
        assert "up to half a minute" in capsys.readouterr().err
        return f"of {shell}"

    monkeypatch.setattr(completion, "script", script)
    assert main(["completion", "bash"]) == 0
    assert capsys.readouterr().out == "of bash\n"  # which is all that the shell reads


def test_an_unknown_shell_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["completion", "bsh"])
    assert "did you mean bash?" in capsys.readouterr().err
