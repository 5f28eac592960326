"""What a long command says between its stages."""

from datetime import datetime

import pytest

from mafr.cli.reproduce import STAGES
from mafr.cli.stages import USUAL, Guide, run_stages

NOON = datetime(2026, 1, 1, 12, 0)
STEPS = ("data", "runs", "notebooks")
GUIDE = Guide({"data": 100.0, "runs": 600.0, "notebooks": 300.0}, {"data": "notebook 01"})


def test_the_estimate_follows_the_pace_of_this_machine():
    assert "about 17 min, until 12:16" in GUIDE.left(STEPS, {}, NOON)
    assert "runs, notebooks: about 30 min, until 12:30" in GUIDE.left(STEPS, {"data": 200.0}, NOON)
    # A stage that found its work done says nothing of the pace.
    assert "about 15 min" in GUIDE.left(STEPS, {"data": 1.0}, NOON)
    assert GUIDE.left(STEPS, dict.fromkeys(STEPS, 1.0), NOON) == ""


def test_without_usual_times_there_is_no_estimate():
    assert Guide().left(STEPS, {}, NOON) == "data, runs, notebooks"
    assert all(set(times) == set(STAGES) for times in USUAL.values())


def test_stages_say_what_is_done_left_and_can_be_opened(capsys):
    done = []
    seconds = run_stages({name: lambda name=name: done.append(name) for name in STEPS}, GUIDE)
    assert done == list(STEPS) == list(seconds)
    said = capsys.readouterr().err
    assert said.startswith("stages: data, runs, notebooks") and "to open now: notebook 01" in said
    assert said.count("left:") == 2 and "== notebooks" in said
    run_stages({"data": lambda: None})
    assert "left" not in capsys.readouterr().err


def test_an_error_ends_the_stages():
    def fail():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        run_stages({"data": fail, "runs": lambda: pytest.fail("begun")})
