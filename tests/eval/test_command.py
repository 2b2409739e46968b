import pytest

from eval.command import portable_command


@pytest.mark.parametrize(
    ("argument", "written"),
    [
        ("--run={here}/runs/a", "--run=runs/a"),
        ("{here}/x.tar", "x.tar"),
        ("/somewhere/else/x.tar", "x.tar"),
        ("data/[000..009].tar", "'data/[000..009].tar'"),
        ("--no-rerank", "--no-rerank"),
    ],
)
def test_the_command_is_written_without_paths_of_this_machine(
    tmp_path, monkeypatch, argument, written
):
    monkeypatch.chdir(tmp_path)
    command = portable_command("eval.retrieval", [argument.format(here=tmp_path)])
    assert command == f"python -m eval.retrieval {written}"
