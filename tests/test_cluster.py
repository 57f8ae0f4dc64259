"""cluster.yaml satisfies Ray's own schema check and our rules; every rule is tested on a damaged copy."""

from __future__ import annotations

import copy
import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config

from pipeline.runtime import CONFIG_OF_OUR_OWN

ROOT = Path(__file__).parents[1]
CLUSTER = ROOT / "cluster.yaml"
PINNED_RAY = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)

Config = dict[str, Any]

# AWS families with NVIDIA GPUs: g4dn, g5, g6, gr6, p3 to p6. GPUs per instance can't be read off the name's size.
GPU_INSTANCE = re.compile(r"^(g\d|gr\d|p\d)")
SECRETS = {
    "an AWS access key id": re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b"),
    "an AWS secret": re.compile(  # 40 base64 characters with a capital and a digit among them
        r"(?<![\w/+=])(?=[A-Za-z0-9/+]*\d)(?=[A-Za-z0-9/+]*[A-Z])[A-Za-z0-9/+]{40}(?![\w/+=])"
    ),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY"),
    "a secret's setting": re.compile(r"(?i)(aws_secret_access_key|aws_session_token|password|hf_token)\s*[:=]"),
    "a token": re.compile(r"\b(hf_[A-Za-z0-9]{20,}|ghp_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9]{20,})"),
}


def workers(config: Config) -> dict[str, Config]:
    return {name: node for name, node in config["available_node_types"].items() if name != config["head_node_type"]}


def is_spot(node: Config) -> bool:
    market = node["node_config"].get("InstanceMarketOptions", {})
    return bool(market.get("MarketType") == "spot")


def head_problems(config: Config) -> Iterator[str]:
    head = config["available_node_types"][config["head_node_type"]]
    if GPU_INSTANCE.match(head["node_config"]["InstanceType"]) or head["resources"].get("GPU", 0):
        yield "the head has a GPU"
    if head["resources"].get("CPU") != 0:
        yield "the head takes tasks: its CPU must be 0"


def worker_problems(config: Config) -> Iterator[str]:
    for name, node in workers(config).items():
        has_gpu = bool(GPU_INSTANCE.match(node["node_config"]["InstanceType"]))
        if has_gpu != (node["resources"].get("GPU", 0) > 0):
            yield f"{name}: advertises {node['resources'].get('GPU', 0)} GPUs on {node['node_config']['InstanceType']}"
        if has_gpu and "gpu" not in node.get("docker", {}).get("worker_image", ""):
            yield f"{name}: a GPU worker without a GPU image"
        if node.get("min_workers") != 0:
            yield f"{name}: min_workers must be 0, or the cluster never scales to nothing"
        if "IamInstanceProfile" not in node["node_config"]:
            yield f"{name}: no instance profile, so it can't reach the bucket"
    total = sum(node.get("max_workers", 0) for node in workers(config).values())
    if config["max_workers"] != total:
        yield f"max_workers is {config['max_workers']}, its groups sum to {total}"


def market_problems(config: Config) -> Iterator[str]:
    gpus = [node for node in workers(config).values() if node["resources"].get("GPU", 0)]
    spot = [node.get("priority", 0) for node in gpus if is_spot(node)]
    on_demand = [node.get("priority", 0) for node in gpus if not is_spot(node)]
    if not spot or not on_demand:
        yield "GPU workers need a spot group and an on-demand group to fall back to"
    elif min(spot) <= max(on_demand):
        yield f"spot does not come before on-demand: priorities {spot} against {on_demand}"
    if {node["resources"]["GPU"] for node in gpus} - {1}:
        yield "a GPU worker with several GPUs: check the instance type and this rule"


def install_problems(config: Config) -> Iterator[str]:
    mounts = [remote for remote, local in config["file_mounts"].items() if local == "."]
    if not mounts:
        yield "the project is not synced: no file mount of ."
    installs = [line for line in config["setup_commands"] if "pip install" in line]
    pinned = [line for line in installs if "-c constraints.txt" in line and re.search(r"-e \.(\s|$)", line)]
    if not installs or pinned != installs:
        yield "the install is not pinned by constraints.txt"
    elif not all(any(f"cd {mount} " in line for mount in mounts) for line in installs):
        yield "the install does not run in the synced project"
    assert PINNED_RAY, "constraints.txt has no line ray==..."
    images = [config["docker"].get("image", "")]
    images += [node["docker"]["worker_image"] for node in workers(config).values() if "docker" in node]
    for image in images:
        if not re.fullmatch(rf"rayproject/ray:{re.escape(PINNED_RAY[1])}-py3(11|12)-(cpu|gpu)", image):
            yield f"image {image!r} does not state Python 3.11 or 3.12 and Ray {PINNED_RAY[1]}"
    if any("--dashboard-host=0.0.0.0" in line for line in config["head_start_ray_commands"]):
        yield "the dashboard, which runs commands, listens on all interfaces"


def start_problems(config: Config) -> Iterator[str]:
    [start] = [line for line in config["head_start_ray_commands"] if "ray start" in line]
    given = [word for word in shlex.split(start) if word.startswith("--system-config=")]
    if [json.loads(word.partition("=")[2]) for word in given] != [CONFIG_OF_OUR_OWN]:
        yield f"the head starts Ray otherwise than we do: its system config is not {CONFIG_OF_OUR_OWN}"


def secret_problems(text: str) -> Iterator[str]:
    for what, pattern in SECRETS.items():
        if pattern.search(text):
            yield f"the file holds {what}"


def problems(config: Config) -> list[str]:
    """What our own rules find wrong with a cluster file; Ray's schema checks the rest."""
    found = [*head_problems(config), *worker_problems(config), *market_problems(config), *install_problems(config)]
    found += start_problems(config)
    return found + list(secret_problems(yaml.safe_dump(config, width=10_000)))


@pytest.fixture
def config() -> Config:
    return copy.deepcopy(yaml.safe_load(CLUSTER.read_text()))


def test_ray_accepts_the_cluster_file(config: Config) -> None:
    validate_config(prepare_config(config))


def test_our_rules_find_nothing_wrong(config: Config) -> None:
    assert problems(config) == []
    assert list(secret_problems(CLUSTER.read_text())) == [], "in a comment"


@pytest.mark.parametrize("setting", ["region", "ImageId", "deixis-head", "deixis-worker", "max_workers"])
def test_what_to_edit_is_marked(setting: str) -> None:
    on_its_line, above_it = rf"{setting}.*# EDIT", rf"# EDIT:.*\n.*{setting}"
    assert re.search(f"{on_its_line}|{above_it}", CLUSTER.read_text()), f"{setting} has no # EDIT mark"


def _set(*path_and_value: Any) -> Callable[[Config], None]:
    """A damage: walk the keys, set the last one to the value."""
    *path, last, value = path_and_value

    def damage(config: Config) -> None:
        for key in path:
            config = config[key]
        config[last] = value

    return damage


TYPES = "available_node_types"
SPOT, ON_DEMAND = (TYPES, "gpu_worker_spot"), (TYPES, "gpu_worker_on_demand")


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (_set(TYPES, "head", "node_config", "InstanceType", "g6.2xlarge"), "the head has a GPU"),
        (_set(TYPES, "head", "resources", "GPU", 1), "the head has a GPU"),
        (_set(TYPES, "head", "resources", {}), "its CPU must be 0"),
        (_set(*SPOT, "resources", {"CPU": 8}), "advertises 0 GPUs on g6.2xlarge"),
        (_set(TYPES, "cpu_worker", "resources", {"CPU": 16, "GPU": 1}), "advertises 1 GPUs on c7i.4xlarge"),
        (_set(*SPOT, "docker", {"worker_image": "rayproject/ray:2.60.0-py311-cpu"}), "without a GPU image"),
        (_set(*SPOT, "min_workers", 1), "min_workers must be 0"),
        (_set(*ON_DEMAND, "node_config", {"InstanceType": "g6.2xlarge"}), "no instance profile"),
        (_set("max_workers", 1), "max_workers is 1, its groups sum to"),
        (_set(*SPOT, "priority", 0), "spot does not come before on-demand"),
        (_set(*ON_DEMAND, "node_config", "InstanceMarketOptions", {"MarketType": "spot"}), "to fall back to"),
        (_set(*SPOT, "resources", {"CPU": 8, "GPU": 4}), "several GPUs"),
        (_set("file_mounts", {}), "not synced"),
        (_set("setup_commands", ["cd ~/deixis && pip install -e ."]), "not pinned"),
        (_set("setup_commands", []), "not pinned"),
        (_set("setup_commands", ["pip install -c constraints.txt -e ."]), "not run in the synced project"),
        (_set("docker", "image", "rayproject/ray:latest"), "does not state"),
        (_set(*SPOT, "docker", {"worker_image": "rayproject/ray:2.59.0-py311-gpu"}), "does not state"),
        (_set("head_start_ray_commands", ["ray start --head --dashboard-host=0.0.0.0"]), "all interfaces"),
        (_set("head_start_ray_commands", ["ray start --head"]), "starts Ray otherwise than we do"),
        (_set("provider", "key", "AKIA" + "ABCDEFGHIJ234567"), "access key id"),
        (_set("provider", "key", "wJalrXUtnFEMI/K7MDENG/" + "bPxRfiCYEXAMPLEKEY"), "an AWS secret"),
        (_set("auth", "key", "-----BEGIN RSA " + "PRIVATE KEY-----"), "a private key"),
        (_set("setup_commands", ["export AWS_SECRET_ACCESS_KEY=x"]), "a secret's setting"),
        (_set("setup_commands", ["huggingface-cli login hf_" + "a" * 30]), "a token"),
    ],
)
def test_a_damaged_cluster_file_is_refused(config: Config, damage: Callable[[Config], None], complaint: str) -> None:
    damage(config)
    assert any(complaint in problem for problem in problems(config)), problems(config)


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (_set("max_worker", 3), ValidationError),
        (_set("idle_timeout_minutes", "five"), ValidationError),
        (_set(*SPOT, "resources", {"GPU": -1}), ValidationError),
        (_set("head_node_type", "heads"), ValueError),
        (_set(*SPOT, "min_workers", 99), ValueError),
    ],
)
def test_ray_refuses_what_its_schema_forbids(
    config: Config, damage: Callable[[Config], None], error: type[Exception]
) -> None:
    damage(config)
    with pytest.raises(error):
        validate_config(prepare_config(config))
