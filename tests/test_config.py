"""Settings: profiles, variants, validation; the dependency lists agree."""

import ast
import dataclasses
import hashlib
import json
import math
import os
import re
import subprocess
import sys
import tomllib
import venv
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from support.places import CHECKOUT

from mafr.baselines.registry import METHODS
from mafr.config import ADDED, PROFILES, SETTINGS, VARIANTS, Config, differences
from mafr.errors import ConfigError
from mafr.experiments.plan import Run
from mafr.settings.field import ALL, DECIDES

# The first digits of digests: by them stored runs and features are found again. They change only together with all
# that is stored.
DIGESTS = {
    ("smoke", "paper"): "c5a4d0ca5ebbecda",
    ("smoke", "released"): "3c460d6a96391604",
    ("demo", "paper"): "13f76dae3cc6be9c",
    ("demo", "released"): "59d59bb404b11ac0",
    ("full", "paper"): "2d783fef2ec57c42",
    ("full", "released"): "b299c65a7f40b3d2",
}
FEATURE_DIGESTS = {"smoke": "6280e9c911a73921", "demo": "36bfa868238a0339", "full": "da2e5a90428df1fa"}
DATA_DIGESTS = {"mvtec3d": "57d5902632145cc7", "eyecandies": "765e92a452283498"}
RUN_DIGESTS = {
    ("mafr", None): "343773157408fc43",
    ("mafr", 5): "f3bff697ce4887ac",
    ("cfm", None): "5b3120acc4291fd0",
    ("cfm_m", None): "c273b8a77f41f520",
    ("btf", 5): "4b01fe3c82725be2",
    ("m3dm", None): "7ccc0fa420a01133",
    ("ast", None): "9a98c2f7a4382d10",
    ("rgbd", None): "cb828fda5acb7ad9",
    ("depthvm", None): "8db760cb0124b804",
    ("voxelgan", None): "a9d7f867ab6fa08b",
}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_round_trip(profile, variant):
    config = Config.preset(profile, variant)
    assert Config.from_dict(config.as_dict()) == config
    assert config.with_variant(variant) == config


def test_variant_is_independent_of_the_profile():
    for profile in PROFILES:
        paper, released = (Config.preset(profile, v) for v in VARIANTS)
        assert paper.with_variant("released") == released and released.with_variant("paper") == paper
        shared = paper.feature_digest() == released.feature_digest()
        assert shared == (profile != "full"), "the variants' inputs differ at full size only"


def test_the_digest_sees_every_setting():
    config = Config.preset("demo")
    changes = {"seed": 1, "epochs": 3, "dropout": 0.2, "loss_terms": ("sim",), "blur": "box"}
    digests = {dataclasses.replace(config, **{k: v}).digest() for k, v in changes.items()}
    assert len(digests | {config.digest()}) == len(changes) + 1


def test_settings_younger_than_a_record_change_no_digest():
    config = Config.preset("demo", overrides={"generator": "first"})
    older = {name: value for name, value in config.as_dict().items() if name not in ADDED}
    assert Config.from_dict(older) == config
    unnamed = {"device", "rgb_blocks", "point_blocks"}
    text = json.dumps({name: older[name] for name in sorted(set(older) - unnamed)})
    assert config.digest() == hashlib.sha256(text.encode()).hexdigest()
    assert dataclasses.replace(config, samples_a_step=2).digest() != config.digest()
    assert dataclasses.replace(config, compiled=True).digest() == config.digest()  # where and how, not what


def test_digests_are_those_of_stored_runs():
    for (profile, variant), digest in DIGESTS.items():
        assert Config.preset(profile, variant).digest()[:16] == digest
    demo = Config.preset("demo")
    assert {name: Config.preset(name).feature_digest()[:16] for name in FEATURE_DIGESTS} == FEATURE_DIGESTS
    assert {name: demo.data_digest(name)[:16] for name in DATA_DIGESTS} == DATA_DIGESTS
    runs = {(m, n): Run("mvtec3d", "bagel", demo, n, m).digest[:16] for m, n in RUN_DIGESTS}
    assert runs == RUN_DIGESTS


@pytest.mark.parametrize("method", ["mafr", "btf"])
@pytest.mark.parametrize("profile", PROFILES)
def test_settings_of_reports_do_not_make_runs_again(profile, method):
    """No run depends on the resamples of tables, and no trained head on the threshold."""
    config = Config.preset(profile)
    run = Run("mvtec3d", "bagel", config, method=method)
    resampled = Run("mvtec3d", "bagel", dataclasses.replace(config, bootstrap=7), method=method)
    assert (resampled.digest, resampled.head_digest) == (run.digest, run.head_digest)
    assert resampled.config.digest() != config.digest()  # tables are named by it
    stricter = Run("mvtec3d", "bagel", dataclasses.replace(config, quantile=0.9), method=method)
    assert stricter.head_digest == run.head_digest and stricter.digest != run.digest
    assert differences(resampled.config, config, method) == []


def test_settings_of_generated_data_do_not_concern_real_scans():
    real = Config.preset("demo", overrides={"generated": False})
    other = dataclasses.replace(real, generator="first", raw_side=99)
    assert differences(other, real, "mafr") == []
    assert Run("mvtec3d", "bagel", other) == Run("mvtec3d", "bagel", real)
    saved, wanted = (dataclasses.replace(one, generated=True) for one in (other, real))
    assert any("generator" in text for text in differences(saved, wanted, "mafr"))


def test_every_setting_says_whom_it_concerns_and_what_it_decides():
    for name, field in SETTINGS.items():
        said = field.metadata
        assert said["of"] == ALL or (said["of"] and set(said["of"]) <= set(METHODS)), name
        assert said["decides"] in DECIDES, name
        assert len({"absent_is", "unnamed_at"} & set(said)) < 2, name
    assert {field.metadata["decides"] for field in SETTINGS.values()} == set(DECIDES)


@pytest.mark.parametrize("name", [n for n, f in SETTINGS.items() if "choices" in f.metadata])
def test_choices_are_enforced(name):
    for value in SETTINGS[name].metadata["choices"]:
        assert getattr(dataclasses.replace(Config(), **{name: value}), name) == value
    with pytest.raises(ConfigError, match=f"unknown {name} 'neither'"):
        dataclasses.replace(Config(), **{name: "neither"})


BROKEN = {
    "be positive": 0,
    "not be negative": -1,
    "be at least 3": 2,
    "be odd": 2,
    "be in [0, 1)": 1.0,
    "be in (0, 1]": 0.0,
}


@pytest.mark.parametrize(
    ("name", "must"),
    [(name, rule.must) for name, field in SETTINGS.items() for rule in field.metadata["rules"]],
)
def test_rules_are_enforced(name, must):
    value = (5, BROKEN[must]) if isinstance(SETTINGS[name].default, tuple) else BROKEN[must]
    with pytest.raises(ConfigError, match=re.escape(f"{name} must {must}, not {value}")):
        dataclasses.replace(Config(), **{name: value})


@pytest.mark.parametrize("name", [name for name, field in SETTINGS.items() if isinstance(field.default, float)])
def test_every_fraction_is_finite_and_has_a_range(name):
    assert SETTINGS[name].metadata["rules"]
    for value in (math.inf, -math.inf, math.nan):
        with pytest.raises(ConfigError, match=re.escape(f"{name} must be finite, not {value}")):
            dataclasses.replace(Config(), **{name: value})


def test_trainings_of_the_demo_stand_in_their_written_ratios():
    demo = Config.preset("demo")
    assert demo.cfm_epochs == demo.epochs * 250 / 100
    assert demo.rgbd_epochs * demo.rgbd_repeat == demo.epochs
    assert demo.depth_epochs * demo.depth_copies == demo.voxel_epochs * demo.voxel_copies == demo.epochs
    assert demo.m3dm_steps == demo.ast_epochs * demo.mvtec3d_train / demo.ast_batch
    assert demo.ast_learning_rate * demo.m3dm_steps == pytest.approx(2e-4 * 72 * 266 / 8, rel=0.005)
    few = min(demo.shots)
    steps = {demo.epochs * few, demo.cfm_epochs * math.ceil(few / demo.cfm_batch)}
    steps.add(demo.rgbd_epochs * math.ceil(demo.eyecandies_train / demo.rgbd_batch))
    assert min(steps) >= demo.min_steps > demo.ast_epochs * (few // demo.ast_batch)  # AST's alone are lengthened


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"epoch": 3}, "unknown setting 'epoch'"),
        ({"epochs": 0}, "epochs must be positive"),
        ({"samples_a_step": 0}, "samples_a_step must be positive"),
        ({"rgb_backbone": "resnet"}, "efficientnet_lite0"),
        ({"mvtec3d_categories": ["bagle"]}, "bagle"),
        ({"loss_terms": []}, "loss_terms"),
        ({"loss_terms": ["sim", "sim"]}, "loss_terms"),
        ({"loss_terms": ["cosine"]}, "cosine"),
        ({"census_kernel": 6}, "odd"),
        ({"dropout": 1.0}, "dropout"),
        ({"grid": 50}, "multiple"),
        ({"quantile": 0.0}, "quantile"),
        ({"fused_dim": -5}, "fused_dim must not be negative"),
        ({"weight_sim": -1.0}, "weight_sim must not be negative"),
        ({"ast_weight_decay": -1.0}, "ast_weight_decay must not be negative"),
        ({"m3dm_weight_rgb": math.nan}, "m3dm_weight_rgb must be finite"),
        ({"shots": [0, 5]}, "shots"),
    ],
)
def test_bad_settings_are_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        Config.preset("demo", overrides=overrides)


def test_unknown_profile_and_variant():
    with pytest.raises(ConfigError, match="smoke, demo, full"):
        Config.preset("large")
    with pytest.raises(ConfigError, match="paper, released"):
        Config.preset("demo", "draft")
    with pytest.raises(ConfigError, match="missing or unknown: epochs"):
        Config.from_dict({k: v for k, v in Config().as_dict().items() if k != "epochs"})


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_lock_satisfies_pyproject_and_conda_installs_it():
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [Requirement(r) for r in [*project["dependencies"], *extras["test"], *extras["site"]]]
    locked: dict[str, list[str]] = {}
    for line in (CHECKOUT / "requirements.lock").read_text().splitlines():
        requirement = Requirement(line)
        locked.setdefault(normal(requirement.name), []).append(str(requirement.specifier).removeprefix("=="))
    for requirement in wanted:
        versions = locked[normal(requirement.name)]
        assert all(requirement.specifier.contains(v) for v in versions), requirement
    environment = yaml.safe_load((CHECKOUT / "environment.yml").read_text())
    python, _, packages = environment["dependencies"]
    assert packages == {"pip": ["-r requirements.lock", "-e ."]}
    assert python.startswith("python" + project["requires-python"])


def test_run_all_does_not_take_an_empty_environment_for_its_own(tmp_path):
    """`mafr` lies in the current folder, so that a bare `import mafr` succeeds in any environment."""
    venv.create(tmp_path / "empty", with_pip=False)
    answers = []
    for folder in (tmp_path / "empty" / "bin", Path(sys.executable).parent):
        environment = {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
        answers.append(of_run_all("installed && echo yes || echo no", **environment).stdout.strip())
    assert answers == ["no", "yes"]


def of_run_all(script: str, **environment: str) -> subprocess.CompletedProcess:
    """What bash does with a script after the functions of run_all.sh."""
    functions = "sed -n '/^suitable=/p; /^find_python()/,/^}/p; /^installed()/,/^}/p' run_all.sh"
    return subprocess.run(
        ["bash", "-c", f'eval "$({functions})"; {script}'], cwd=CHECKOUT, env=os.environ | environment,
        capture_output=True, text=True,
    )  # fmt: skip


def interpreter(folder: Path, name: str, version: tuple[int, int], *, there: str = "") -> None:
    """A program that behaves as a Python of that version, in which the modules of `there` are installed."""
    code = "import importlib.util, sys; sys.version_info = %r; spec = importlib.util.find_spec; "
    code += "importlib.util.find_spec = lambda one: spec(one) if one in %r.split() else None; "
    path = folder / name
    path.write_text(
        f"#!{sys.executable}\nimport sys\nwords = [one for one in sys.argv[1:] if one != '-I']\n"
        f"text = words[1] if words[0] == '-c' else sys.stdin.read()\nsys.argv = words\n"
        f"exec({code % (version, there)!r} + '\\n' + text)\n"
    )
    path.chmod(0o755)


def test_run_all_takes_no_python_outside_the_bounds(tmp_path):
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    bounds = SpecifierSet(project["requires-python"])
    names = ("python3", "python3.13", "python3.12", "python3.11", "python")
    for version in ((3, 9), (3, 10), (3, 11), (3, 12), (3, 13), (3, 14)):
        for name in names:
            interpreter(tmp_path, name, version)
        done = of_run_all("find_python", PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        if bounds.contains(".".join(map(str, version))):
            assert done.stdout.strip() == "python3"
        else:
            assert done.returncode != 0 and done.stdout == ""
            assert "needs Python 3.11, 3.12 or 3.13" in done.stderr
    interpreter(tmp_path, "python3.12", (3, 12))  # beside a python3 that is too new
    assert of_run_all("find_python", PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}").stdout.strip() == "python3.12"


@pytest.mark.parametrize(
    ("there", "first", "answer"),
    [("mafr torch", "", "yes"), ("mafr torch", "test", "no"), ("mafr torch pytest", "test", "no"),
     ("mafr torch pytest xdist", "test", "yes"), ("mafr pytest xdist", "", "no")],
)  # fmt: skip
def test_run_all_needs_pytest_and_its_workers_for_tests_alone(tmp_path, there, first, answer):
    interpreter(tmp_path, "python", (3, 12), there=there)
    environment = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(CHECKOUT)}
    done = of_run_all(f'installed "{first}" && echo yes || echo no', **environment)
    assert (done.stdout.strip(), done.stderr) == (answer, "")


def test_an_active_environment_outside_the_bounds_does_not_count(tmp_path):
    interpreter(tmp_path, "python", (3, 14), there="mafr torch")
    environment = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(CHECKOUT)}
    assert of_run_all("installed && echo yes || echo no", **environment).stdout.strip() == "no"


def test_what_is_imported_is_declared():
    """Of the sources and of the tests; a package that another one brings may leave with it."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    extras, always = project["optional-dependencies"], project["dependencies"]
    declared = {"mafr": [*always, *extras["site"], *extras["dask"]], "tests": [*always, *chain(*extras.values())]}
    known = {"mafr", "support", *sys.stdlib_module_names, *(path.stem for path in (CHECKOUT / "tests").rglob("*.py"))}
    holders = packages_distributions()
    for folder, requirements in declared.items():
        names = {normal(Requirement(one).name) for one in requirements}
        for path in (CHECKOUT / folder).rglob("*.py"):
            for module in imported(path) - known:
                assert names & {normal(one) for one in holders.get(module, [module])}, f"{path}: {module}"


def imported(path: Path) -> set[str]:
    """The top names of the modules that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {one.name.partition(".")[0] for one in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.partition(".")[0])
    return found
