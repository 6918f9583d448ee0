"""cluster.yaml and jobs/runtime_env.yaml, read the way Ray reads them, without a cloud."""

import copy
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

Settings = dict[str, Any]


@pytest.fixture
def cluster(root: Path) -> Settings:
    """What `ray up` works with before it meets the cloud: defaults filled in, checked against Ray's schema."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    settings: Settings = prepare_config(yaml.safe_load((root / "cluster.yaml").read_text(encoding="utf-8")))
    validate_config(settings)
    return settings


@pytest.fixture
def runtime_env(root: Path) -> Settings:
    settings: Settings = yaml.safe_load((root / "jobs" / "runtime_env.yaml").read_text(encoding="utf-8"))
    return settings


def test_rays_validation_is_not_asleep(cluster: Settings) -> None:
    from ray.autoscaler._private.util import validate_config

    broken = copy.deepcopy(cluster)
    broken["idle_timeout"] = 3
    with pytest.raises(Exception, match="Additional properties") as refusal:
        validate_config(broken)
    assert type(refusal.value).__name__ == "ValidationError"


def test_the_head_has_no_gpu_and_gpu_workers_start_from_zero(cluster: Settings) -> None:
    nodes = cluster["available_node_types"]
    head = nodes.pop(cluster["head_node_type"])
    assert head["resources"]["GPU"] == 0
    assert nodes
    for worker in nodes.values():
        assert worker["resources"]["GPU"] > 0
        assert worker["min_workers"] == 0
        assert worker["max_workers"] > 0
    assert cluster["idle_timeout_minutes"] > 0


def test_every_node_names_its_image_because_rays_default_is_too_old(cluster: Settings) -> None:
    assert all(node["node_config"]["ImageId"] for node in cluster["available_node_types"].values())


def test_every_node_starts_ray_with_the_token_and_has_it(cluster: Settings) -> None:
    commands = cluster["head_start_ray_commands"] + cluster["worker_start_ray_commands"]
    starts = [command for command in commands if "ray start" in command]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token ray start" in start.replace("RAY_USAGE_STATS_ENABLED=0 ", "") for start in starts)
    assert "~/.ray/auth_token" in cluster["file_mounts"]


def test_the_dashboard_is_not_open_to_the_network(cluster: Settings) -> None:
    (start,) = [command for command in cluster["head_start_ray_commands"] if "ray start" in command]
    assert "--dashboard-host=127.0.0.1" in start


def test_every_node_installs_the_pinned_versions_from_files_it_receives(cluster: Settings, root: Path) -> None:
    for kind in ("head_setup_commands", "worker_setup_commands"):
        assert any("pip install -c constraints.txt -e" in command for command in cluster[kind])
    local = [Path(path) for path in cluster["file_mounts"].values() if not path.startswith("~")]
    assert {Path("platform"), Path("pyproject.toml"), Path("constraints.txt")} <= set(local)
    assert not [str(path) for path in local if not (root / path).exists()]


def test_every_node_installs_extras_that_exist(cluster: Settings, root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (installed,) = re.findall(r"-e '\.\[([\w,]+)\]'", " ".join(cluster["head_setup_commands"]))
    assert set(installed.split(",")) <= set(project["optional-dependencies"])


def test_the_runtime_env_is_one_that_ray_knows(runtime_env: Settings, root: Path) -> None:
    from ray.runtime_env import RuntimeEnv

    known = RuntimeEnv(**{key: value for key, value in runtime_env.items() if key not in {"working_dir", "py_modules"}})
    assert known["env_vars"] == runtime_env["env_vars"]
    for path in [runtime_env["working_dir"], *runtime_env["py_modules"]]:
        assert (root / path).is_dir()


def test_the_runtime_env_ships_the_package_itself_and_not_the_folder_called_platform(runtime_env: Settings) -> None:
    assert runtime_env["py_modules"] == ["platform/sottovoce"]
    assert "/platform/" in runtime_env["excludes"]


def test_the_runtime_env_leaves_out_what_only_this_machine_needs(runtime_env: Settings) -> None:
    assert {"/.git/", "/.venv/", "/runs/", "/tests/"} <= set(runtime_env["excludes"])
