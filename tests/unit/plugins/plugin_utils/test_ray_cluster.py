"""What the members of an instance over several hosts run, and what has to be alike."""

import importlib.util
import pathlib

import pytest
from ansible_collections.gpuhosts.inference.plugins.filter.ray_cluster_instances import ray_cluster_instances
from ansible_collections.gpuhosts.inference.plugins.filter.ray_cluster_problems import FOUND, ray_cluster_problems
from ansible_collections.gpuhosts.inference.plugins.filter.ray_members import ray_members
from ansible_collections.gpuhosts.inference.plugins.plugin_utils import ray_cluster, service
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.cluster import PORTS
from ansible_collections.gpuhosts.inference.tests.unit.plugins.plugin_utils.test_service import HOST, PLAN, SETTINGS

MEMBER = pathlib.Path(__file__).parents[4] / "roles/ray_cluster/files/ray_cluster/member.py"
BIG = {"name": "big", "model": "Qwen/Qwen3-32B-AWQ", "hosts": ["box1", "box2"], "port": 8888}
CLUSTER = {
    "port": 6379,
    "link": None,
    "hosts": [
        {"name": "box1", "address": "10.0.0.1", "interface": "eth1", "gpus": [0, 1], "layers": [0, 31]},
        {"name": "box2", "address": "10.0.0.2", "interface": "eth2", "gpus": [0, 1], "layers": [32, 63]},
    ],
}
WORKER = {
    "image": "sha256:1",
    "model_path": "/models/x",
    "ulimits": {"memlock": -1},
    "ipc": "host",
    "shm_size": "",
    "read_only": True,
    "program": "# program\n",
}


def made():
    return service.service(BIG, {**PLAN, "cluster": CLUSTER}, HOST, SETTINGS)


def files(name):
    return ray_cluster.files(BIG, CLUSTER, name, HOST, WORKER)


# -- The head ------------------------------------------------------------------------------------------------------------------------------


def test_the_heads_container_starts_ray_and_then_the_engine():
    found = made()["definition"]
    command = found["command"]
    assert "--network=host" in command and not [word for word in command if word.startswith("--publish")]
    assert {"--device=nvidia.com/gpu=0", "--device=nvidia.com/gpu=1"} <= set(command) and found["gpus"] == [0, 1]
    start = command[command.index("--entrypoint=python3") + 2 :]
    assert start == [
        "/ray_cluster/member.py", "head", "--address=10.0.0.1", "--port=6379", "--gpus=2", "--worker=box2=10.0.0.2", "--",
        "python3", "-m", "vllm.entrypoints.openai.api_server",
    ]  # fmt: skip
    # Nothing publishes the port: the engine listens on it itself, on every rung.
    for rung in found["rungs"]:
        assert rung["argv"][:2] == ["--model", "/model/Qwen3-32B-AWQ"] and rung["argv"][-4:] == ["--host", "0.0.0.0", "--port", "8888"]


def test_the_heads_unit_needs_the_firewall_and_others_do_not():
    assert "Requires=ray-cluster-firewall.service\nAfter=ray-cluster-firewall.service\n" in made()["unit"]
    alone = {key: value for key, value in BIG.items() if key != "hosts"}
    assert "ray" not in service.service(alone, PLAN, HOST, SETTINGS)["unit"]


def test_each_member_has_an_address_and_an_interface_of_its_own():
    lines = service.environment(BIG, {**PLAN, "cluster": CLUSTER}).splitlines()
    assert {"VLLM_HOST_IP=10.0.0.1", "NCCL_SOCKET_IFNAME=eth1", "GLOO_SOCKET_IFNAME=eth1"} <= set(lines)
    worker = files("box2")[ray_cluster.ENVIRONMENT].splitlines()
    assert {"VLLM_HOST_IP=10.0.0.2", "NCCL_SOCKET_IFNAME=eth2", "GLOO_SOCKET_IFNAME=eth2"} <= set(worker)


# -- A worker ------------------------------------------------------------------------------------------------------------------------------


def test_a_workers_unit_runs_the_image_that_was_compared():
    unit = files("box2")["/etc/systemd/system/ray-worker.service"]
    start = next(line for line in unit.splitlines() if line.startswith("ExecStart="))
    assert start.endswith(" sha256:1 /ray_cluster/member.py worker --address=10.0.0.2 --port=6379 --gpus=2 --head=10.0.0.1")
    assert "--pull=never" in start and "--cap-drop=ALL" in start and "--read-only" in start and "--volume=/models/x:/model/Qwen3-32B-AWQ:ro" in start
    assert "Restart=always" in unit and "StartLimitIntervalSec=0" in unit and "Requires=ray-cluster-firewall.service" in unit


def test_a_head_has_no_worker():
    assert set(files("box2")) - set(files("box1")) == {"/etc/systemd/system/ray-worker.service", ray_cluster.ENVIRONMENT}
    assert files("box1")["/usr/local/lib/gpuhosts/ray_cluster/member.py"] == "# program\n"


# -- The firewall --------------------------------------------------------------------------------------------------------------------------


def test_the_members_alone_reach_rays_ports():
    rules = {name: text.splitlines()[1:] for name, text in files("box2").items() if ".rules" in name}
    assert rules["/etc/gpuhosts/ray-cluster.rules"] == [
        "*filter",
        ":RAY-CLUSTER - [0:0]",
        "-A RAY-CLUSTER -i lo -j RETURN",
        "-A RAY-CLUSTER -s 10.0.0.1/32 -j RETURN",
        "-A RAY-CLUSTER -s 10.0.0.2/32 -j RETURN",
        "-A RAY-CLUSTER -p tcp -m tcp --dport 6379:6499 -j DROP",
        "COMMIT",
    ]
    # Ray listens there too, and no member has such an address.
    assert rules["/etc/gpuhosts/ray-cluster.rules6"][2:-1] == ["-A RAY-CLUSTER -i lo -j RETURN", "-A RAY-CLUSTER -p tcp -m tcp --dport 6379:6499 -j DROP"]


def test_every_port_of_ray_is_behind_the_firewall(member):
    options = member.argparse.Namespace(address="10.0.0.1", port=6379, gpus=8)
    given = dict(word[2:].split("=") for word in member.start_argv(options) if "port=" in word)
    assert len(given) == 8 and len(set(given.values())) == 8
    assert all(6379 < int(port) < 6379 + PORTS for port in given.values())


# -- What has to be alike ------------------------------------------------------------------------------------------------------------------


SAME = {"image": "sha256:1", "commit": "abc"}


def sentences(**found):
    return ray_cluster_problems(BIG, {name: {FOUND: each} if each else {} for name, each in found.items()})


def test_members_that_are_alike():
    assert sentences(box1=SAME, box2=SAME) == []


@pytest.mark.parametrize(
    "found, sentence",
    [
        (
            {"box2": {**SAME, "image": "sha256:2"}},
            "big: box2 has the image sha256:2, and the head box1 sha256:1. Give all members the same vllm_images, by digest, and run again: nothing was "
            "changed, and what serves goes on.",
        ),
        (
            {"box2": {**SAME, "commit": "def"}},
            "big: box2 has the model at the commit def, and the head box1 abc. Give the instance a revision that is a commit, and run again: nothing was "
            "changed, and what serves goes on.",
        ),
        ({"box2": {**SAME, "image": None}}, "big: box2 has not got the image that it runs with. Run playbooks/artifacts.yml for all members."),
        (
            {"box2": None},
            "big is held by box1, box2, and box2 was not looked at in this run. Run for all of them, without a --limit that leaves box2 out, or start it.",
        ),
    ],
)
def test_members_that_differ_are_named_in_one_sentence(found, sentence):
    assert sentences(**{"box1": SAME, **found}) == [sentence]


def test_a_host_finds_the_instances_that_name_it():
    variables = {"box1": {"vllm_instances": [BIG, {"name": "other", "model": "a/b"}]}, "box2": {}, "box3": {"vllm_instances": "nonsense"}}
    assert ray_cluster_instances("box2", variables, list(variables)) == [BIG]
    assert ray_cluster_instances("box3", variables, list(variables)) == []


def test_members_are_described_by_their_facts_or_by_the_inventory():
    seen = {"gpus": [{"name": "card", "memory_total_bytes": 1}], "memory_bytes": 2, "packages": {"a": "1"}}
    bare = {"gpus": [{"name": "card"}]}
    variables = {
        "box1": {"ansible_facts": {"gpuhosts": seen}, "gpuhosts_hardware": {"gpus": []}, "ray_cluster_address": "10.0.0.1", "vllm_instances": [BIG]},
        "box2": {"ansible_facts": {"gpuhosts": bare}, "gpuhosts_hardware": {"gpus": [1]}, "ray_cluster_allow_public": "no", "ray_cluster_port": 7000},
    }
    found = ray_members([BIG, "nonsense", {"hosts": 3}, {"hosts": ["nobody", 4]}], variables)
    assert list(found) == ["box1", "box2"]
    assert found["box1"]["hardware"]["gpus"] == seen["gpus"] and "packages" not in found["box1"]["hardware"]
    assert (found["box1"]["address"], found["box1"]["port"], found["box1"]["instances"]) == ("10.0.0.1", 6379, [BIG])
    assert (found["box2"]["hardware"], found["box2"]["allow_public"], found["box2"]["port"]) == ({"gpus": [1]}, False, 7000)
    assert ray_members([{"name": "other"}], variables) == {}


# -- What runs in the containers -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def member():
    specification = importlib.util.spec_from_file_location("member", MEMBER)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def node(address, alive=True, identity=None, why=""):
    return {"NodeManagerAddress": address, "Alive": alive, "NodeID": identity or address, "DeathReasonMessage": why}


BOTH_NODES = [node("10.0.0.1", identity="1"), node("10.0.0.2", identity="2")]


def test_who_has_not_joined(member):
    others = {"box2": "10.0.0.2", "box3": "10.0.0.3"}
    assert member.missing([node("10.0.0.1"), node("10.0.0.3"), node("10.0.0.2", alive=False)], others) == {"box2": "10.0.0.2"}
    assert member.missing([node("10.0.0.2"), node("10.0.0.3")], others) == {}


def test_who_was_lost(member):
    joined = {"box2": "2"}
    assert member.lost(BOTH_NODES, joined) is None
    dead = [node("10.0.0.1", identity="1"), node("10.0.0.2", alive=False, identity="2", why="missed heartbeats")]
    assert member.lost(dead, joined) == ("box2", "missed heartbeats")
    # The engine's ranks were on the node that is gone, or is about to be found dead.
    again = [*BOTH_NODES, node("10.0.0.2", identity="3")]
    assert member.lost(again, joined) == ("box2", "its Ray was started again")
    assert member.lost(BOTH_NODES[:1], joined) == ("box2", "Ray does not know it any more")


class Ray:
    """Ray as `head` sees it: one list of nodes after the other, the last for ever."""

    def __init__(self, *looks):
        self.looks = list(looks)

    def nodes(self):
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]


@pytest.fixture
def run_head(member, monkeypatch, tmp_path, capsys):
    """run_head(command, *looks): (exit status, what was said)."""
    monkeypatch.setattr(member.pathlib.Path, "home", lambda: tmp_path)
    monkeypatch.setattr(member.signal, "signal", lambda *dummy: None)
    monkeypatch.setattr(member, "start_argv", lambda options: ["true"])
    monkeypatch.setattr(member, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(member, "JOIN_SECONDS", 0.05)
    monkeypatch.setattr(member, "answers", lambda address, port: True)

    def run(command, *looks):
        monkeypatch.setattr(member, "connect", lambda options: Ray(*looks))
        status = member.main(["head", "--address=10.0.0.1", "--port=6379", "--gpus=2", "--worker=box2=10.0.0.2", "--", *command])
        return status, capsys.readouterr().out

    return run


BOTH = [node("10.0.0.1"), node("10.0.0.2")]


def test_the_engine_starts_once_all_have_joined(run_head, tmp_path):
    status, said = run_head(["sh", "-c", f'echo "$RAY_ADDRESS" > {tmp_path}/address; exit 3'], [node("10.0.0.1")], BOTH)
    assert status == 3
    assert "waiting for box2 (10.0.0.2)" in said and "all 2 members have joined: the head (10.0.0.1), box2 (10.0.0.2)" in said
    assert (tmp_path / "address").read_text() == "10.0.0.1:6379\n"
    # The API's key stays on the head.
    assert (tmp_path / ".config/vllm/ray_non_carry_over_env_vars.json").read_text() == '["VLLM_API_KEY"]'


def test_without_a_worker_the_engine_is_not_started(run_head, tmp_path):
    status, said = run_head(["touch", f"{tmp_path}/started"], [node("10.0.0.1")])
    assert status == 75 and not (tmp_path / "started").exists()
    assert "not started, for box2 (10.0.0.2) did not join within" in said


def test_a_lost_worker_is_named_and_ends_the_engine(run_head):
    dead = [node("10.0.0.1"), node("10.0.0.2", alive=False, why="missed heartbeats")]
    status, said = run_head(["sleep", "60"], BOTH, BOTH, dead)
    assert status == 1
    assert "the worker box2 (10.0.0.2) was lost: missed heartbeats. The engine cannot go on without it" in said


def test_an_engine_that_dies_before_ray_notices_is_explained(run_head, member, monkeypatch):
    monkeypatch.setattr(member, "answers", lambda address, port: False)
    status, said = run_head(["false"], BOTH)
    assert status == 1 and "the worker box2 (10.0.0.2) was lost: nobody answers there any more." in said


def test_an_engine_that_dies_by_itself_is_not_the_workers_fault(run_head):
    status, said = run_head(["sh", "-c", "kill -9 $$"], BOTH)
    assert status == 137 and "lost" not in said
