"""Settings: profiles, variants, validation; the dependency lists agree."""

import dataclasses
import hashlib
import json
import os
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from support.places import CHECKOUT

from mafr.config import ADDED, PROFILES, VARIANTS, Config
from mafr.errors import ConfigError


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_round_trip(profile, variant):
    config = Config.preset(profile, variant)
    assert Config.from_dict(config.as_dict()) == config
    assert config.with_variant(variant) == config


def test_variant_is_independent_of_the_profile():
    for profile in PROFILES:
        paper, released = (Config.preset(profile, v) for v in VARIANTS)
        assert paper.with_variant("released") == released
        assert paper.feature_digest() == released.feature_digest()  # features are shared


def test_the_digest_sees_every_setting():
    config = Config.preset("demo")
    changes = {"seed": 1, "epochs": 3, "dropout": 0.2, "loss_terms": ("sim",), "blur": "box"}
    digests = {dataclasses.replace(config, **{k: v}).digest() for k, v in changes.items()}
    assert len(digests | {config.digest()}) == len(changes) + 1


def test_settings_younger_than_a_record_change_no_digest():
    config = Config.preset("demo")
    older = {name: value for name, value in config.as_dict().items() if name not in ADDED}
    assert Config.from_dict(older) == config
    unnamed = {"device", "rgb_blocks", "point_blocks"}
    text = json.dumps({name: older[name] for name in sorted(set(older) - unnamed)})
    assert config.digest() == hashlib.sha256(text.encode()).hexdigest()
    assert dataclasses.replace(config, samples_a_step=2).digest() != config.digest()
    assert dataclasses.replace(config, compiled=True).digest() == config.digest()  # where and how, not what


def test_trainings_of_the_demo_stand_in_their_written_ratios():
    demo = Config.preset("demo")
    assert demo.cfm_epochs == demo.epochs * 250 / 100
    assert demo.rgbd_epochs * demo.rgbd_repeat == demo.epochs
    assert demo.depth_epochs * demo.depth_copies == demo.voxel_epochs * demo.voxel_copies == demo.epochs
    assert demo.m3dm_steps == demo.min_steps == demo.ast_epochs * demo.mvtec3d_train / demo.ast_batch
    assert demo.ast_learning_rate * demo.min_steps == pytest.approx(2e-4 * 72 * 266 / 8, rel=0.005)


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
    wanted = [Requirement(r) for r in project["dependencies"] + project["optional-dependencies"]["test"]]
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
    script = """eval "$(sed -n '/^installed()/,/^}/p' run_all.sh)"; installed && echo yes || echo no"""
    answers = []
    for folder in (tmp_path / "empty" / "bin", Path(sys.executable).parent):
        environment = os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(["bash", "-c", script], cwd=CHECKOUT, env=environment, capture_output=True, text=True)
        answers.append(done.stdout.strip())
    assert answers == ["no", "yes"]
