from tests.export.runs import write_run
from vmm.evaluation.retrieval.match_weight_command import main
from vmm.models.match_weight import read_match_weight


def test_the_command_keeps_a_weight_and_shows_what_others_gave(demo_shards, tmp_path, capsys):
    run = tmp_path / "run"
    write_run(run, seed=0)
    arguments = ["--run", str(run), "--device", "cpu"]
    assert main(arguments) == 2
    assert "names no data.init_args.val_videos" in capsys.readouterr().err
    shards = ["--shards", f"{demo_shards.folder}/val-*.tar", "--clips", "6"]
    assert main([*arguments, *shards]) == 0
    said = capsys.readouterr().out
    (chosen,) = (line for line in said.splitlines() if line.endswith("<- chosen"))
    assert float(chosen.split()[1].rstrip(":")) == read_match_weight(run)
    assert "chosen on 6 clips and kept in" in said
