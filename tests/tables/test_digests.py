"""The list of processors on which tables were met to the byte, and the tables of this checkout and of a fresh run."""

import json
from dataclasses import replace
from importlib.metadata import version

import pytest
from packaging.requirements import Requirement
from support.places import CHECKOUT

from mafr.cli import main
from mafr.errors import ConfigError, ResultError, StorageError
from mafr.experiments.plan import RESULTS_VERSION, all_runs
from mafr.experiments.provenance import processor
from mafr.experiments.run_store import read_records
from mafr.tables.digests import LIST, MAIN, SEEDS, note_digest, read_digests, tables_digest

THIS = processor()
NUMERIC = (
    "numpy", "scipy", "numba", "llvmlite", "torch", "torchvision", "timm", "scikit-learn", "scikit-image", "pandas",
)  # fmt: skip


@pytest.mark.parametrize("what", [MAIN, SEEDS])
def test_the_committed_tables_are_in_the_list(what):
    if (digest := tables_digest(what, CHECKOUT / "tables")) is None:
        pytest.skip(f"{what} is not committed")
    known = [one for one in read_digests() if (one["tables"], one["profile"]) == (what, "demo")]
    command = "mafr tables --digest" if what == MAIN else "mafr seeds --digest"
    found = [one["digest"] for one in known if one["results_version"] == RESULTS_VERSION]
    assert digest in found, f"the committed {what} are not in {LIST.name}: `{command}` adds them"


def test_a_fresh_reproduction_meets_the_list(smoke):
    _, paths = smoke
    known = met_where(read_digests(), MAIN, "smoke", THIS)
    if not known:
        pytest.skip(f"no entry for {THIS['processor']} and results {RESULTS_VERSION}; see `mafr tables --digest`")
    if others := unlike_the_lock((CHECKOUT / "requirements.lock").read_text(encoding="utf-8")):
        pytest.skip(f"bytes are those of requirements.lock, and installed are {', '.join(others)}")
    assert known == [tables_digest(MAIN, paths.tables)]


def met_where(digests: list[dict], what: str, profile: str, machine: dict) -> list[str]:
    """The digests with which a processor should meet tables of this version of the results.

    machine: as `mafr.experiments.provenance.processor`. All processors of a reach meet the same.
    """
    alike = [
        one
        for one in digests
        if (one["tables"], one["profile"], one["results_version"]) == (what, profile, RESULTS_VERSION)
        and one["same_bytes"] == machine["same_bytes"]
    ]
    if not machine["same_bytes"]:
        alike = [one for one in alike if all(one[name] == machine[name] for name in ("processor", "instruction_sets"))]
    return list(dict.fromkeys(one["digest"] for one in alike))


def unlike_the_lock(lock: str) -> list[str]:
    """The numeric libraries whose installed version is not that of the lock, with the installed version."""
    wanted = [Requirement(line) for line in lock.splitlines()]
    wanted = [one for one in wanted if one.name in NUMERIC and (one.marker is None or one.marker.evaluate())]
    assert sorted(one.name for one in wanted) == sorted(NUMERIC)
    return [f"{one.name} {found}" for one in wanted if not one.specifier.contains(found := version(one.name))]


def test_bytes_are_compared_only_with_the_locked_libraries():
    lock = (CHECKOUT / "requirements.lock").read_text(encoding="utf-8")
    there = "\n".join(f"{name}=={version(name)}" for name in NUMERIC)
    assert unlike_the_lock(there) == []
    assert unlike_the_lock(there.replace(f"scipy=={version('scipy')}", "scipy==0.1")) == [f"scipy {version('scipy')}"]
    assert set(unlike_the_lock(lock)) <= {f"{name} {version(name)}" for name in NUMERIC}


def test_the_list_holds_one_entry_for_each_processor():
    keys = [(one["tables"], one["profile"], one["processor"], str(one["instruction_sets"]), one["same_bytes"])
            for one in read_digests()]  # fmt: skip
    assert keys and len(set(keys)) == len(keys)
    limited = [one for one in read_digests() if one["same_bytes"]]
    reached = {(one["tables"], one["profile"], one["same_bytes"]): one["digest"] for one in limited}
    for one in limited:  # all processors of a reach meet the same
        assert reached[one["tables"], one["profile"], one["same_bytes"]] == one["digest"]


def test_the_command_notes_where_tables_were_met(smoke, tmp_path, monkeypatch, capsys):
    _, paths = smoke
    listed = tmp_path / "tests" / "digests.json"
    monkeypatch.setattr("mafr.tables.digests.LIST", listed)
    monkeypatch.setenv("MAFR_HOME", str(paths.root))
    assert main(["tables", "--profile", "smoke", "--digest"]) == 1
    assert "lies in a checkout" in capsys.readouterr().err
    listed.parent.mkdir()
    for _ in range(2):
        assert main(["tables", "--profile", "smoke", "--digest"]) == 0
        (entry,) = json.loads(listed.read_text())
        assert entry == {"tables": MAIN, "profile": "smoke", "results_version": RESULTS_VERSION,
                         "digest": tables_digest(MAIN, paths.tables), **THIS}  # fmt: skip
    assert met_where(read_digests(), MAIN, "smoke", THIS) == [entry["digest"]]
    for part in (["--tables", "1"], ["--methods", "cfm"], ["--variant", "paper"]):
        assert main(["tables", "--profile", "smoke", "--digest", *part]) == 1
        assert "--digest is of all tables" in capsys.readouterr().err


def test_only_the_same_tables_of_the_same_processor_are_replaced(smoke, tmp_path):
    config, paths = smoke
    records, listed = read_records(all_runs(config), paths), tmp_path / "digests.json"
    note_digest(MAIN, records, config, paths, listed)
    (entry,) = read_digests(listed)
    others = [
        entry | {"processor": "another"},
        entry | {"same_bytes": "another"},
        entry | {"profile": "demo"},
        entry | {"tables": SEEDS},
    ]
    gone = [entry | {"digest": "old"}, entry | {"processor": "a third", "results_version": RESULTS_VERSION - 1}]
    listed.write_text(json.dumps([*others, *gone]))
    note_digest(MAIN, records, config, paths, listed)
    assert sorted(map(str, read_digests(listed))) == sorted(map(str, [*others, entry]))


def test_the_limit_makes_all_processors_alike():
    entry = {"tables": MAIN, "profile": "demo", "results_version": RESULTS_VERSION, "processor": "one",
             "instruction_sets": ["AVX2"], "same_bytes": "x86", "digest": "a"}  # fmt: skip
    free, older = entry | {"same_bytes": "", "digest": "b"}, entry | {"results_version": 0}
    here = {"processor": "two", "instruction_sets": ["AVX2", "AVX512"], "same_bytes": "x86"}
    assert met_where([entry, free, older], MAIN, "demo", here) == ["a"]
    assert met_where([entry, free], MAIN, "demo", here | {"same_bytes": ""}) == []
    assert met_where([entry, free], MAIN, "demo", {**here, "processor": "one", "same_bytes": ""}) == []
    assert met_where([entry, free], MAIN, "demo", free) == ["b"]


def test_what_no_single_processor_made_gets_no_entry(smoke, tmp_path):
    config, paths = smoke
    records, listed = read_records(all_runs(config), paths), tmp_path / "digests.json"
    first = next(iter(records))

    def with_place(**place):
        return records | {first: records[first] | {"place": records[first]["place"] | place}}

    for place, said in (
        ({"processor": "another"}, "were computed on 2: .*another, same bytes: "),
        ({"same_bytes": "another"}, "were computed on 2"),
        ({"processor": None}, "does not name the processor"),
        ({"device": "NVIDIA H200"}, "does not name the processor"),
    ):
        with pytest.raises(ResultError, match=said):
            note_digest(MAIN, with_place(**place), config, paths, listed)
    with pytest.raises(ResultError, match="does not name the processor"):  # a record as they were before
        old = {name: value for name, value in records[first].items() if name != "place"}
        note_digest(MAIN, records | {first: old}, config, paths, listed)
    with pytest.raises(ConfigError, match="a profile as it is"):
        note_digest(MAIN, records, replace(config, epochs=3), paths, listed)
    with pytest.raises(ResultError, match="lacks some of Tables I-V"):
        note_digest(MAIN, records, config, replace(paths, root=tmp_path), listed)
    with pytest.raises(StorageError, match="lies in a checkout"):
        note_digest(MAIN, records, config, paths, tmp_path / "nowhere" / "digests.json")
    assert not listed.exists()
