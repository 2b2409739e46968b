from eval.ablations import main


def test_mistakes_in_what_is_asked(capsys):
    assert main(["--short", "--study", "maks"]) == 2
    assert "there is no study 'maks'; known are scan order" in capsys.readouterr().err


def test_help_names_the_form(capsys):
    try:
        main(["--help"])
    except SystemExit as stop:
        assert stop.code == 0
    assert "a quarter of the time" in capsys.readouterr().out
