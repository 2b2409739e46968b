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


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """A file of what the command prints for bash."""
    path = tmp_path_factory.mktemp("completion") / "vmm"
    path.write_text(completion.script("bash"))
    return path


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


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_theirs(shell, capsys):
    parse = CommandParser.parse_args
    assert main(["completion", shell]) == 0
    said = capsys.readouterr().out
    assert "long-video-qa" in said and "model.proj_dim" in said
    assert CommandParser.parse_args is parse


def test_an_unknown_shell_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["completion", "bsh"])
    assert "did you mean bash?" in capsys.readouterr().err
