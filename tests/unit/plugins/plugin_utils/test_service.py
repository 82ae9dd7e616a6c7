"""One definition, written out for every supervisor."""

import pytest
import yaml
from ansible_collections.gpuhosts.inference.plugins.plugin_utils import service

ARTICLE = {"name": "coder", "model": "Qwen/Qwen3-32B-AWQ", "port": 8888, "cpuset_cpus": "0-55"}
ARGV = ["--model", "/model/Qwen3-32B-AWQ", "--served-model-name", "coder", "--tensor-parallel-size", "4"]
PLAN = {
    "argv": ARGV,
    "env": {"VLLM_ATTENTION_BACKEND": "XFORMERS"},
    "kv": {"tokens": 249184, "block_size": 16},
    "ladder": [{"reason": "fewer sequences", "changes": {"max_num_seqs": 32}, "argv": [*ARGV, "--max-num-seqs", "32"], "kv": {"tokens": 250000}}],
    "hang_argv": ["--disable-custom-all-reduce"],
    "ready_seconds": 600,
    "memory": {"per_rank": [{}] * 4},
}
IMAGE = "vllm/vllm-openai:v0.8.5"
HOST = {"gpus": [{}] * 4, "docker": {"version": "26.1.5", "cdi": True, "images": {IMAGE: "sha256:1"}}}
SETTINGS = {
    "images": {"0.8.5": IMAGE},
    "models": {"Qwen/Qwen3-32B-AWQ": {"path": "/home/llm/model/qwen/Qwen3-32B-AWQ", "commit": "abc"}},
    "listen_address": "0.0.0.0",
    "ulimits": {"memlock": -1, "stack": 67108864},
    "ipc": "host",
    "shm_size": "",
    "read_only": True,
    "native_root": "/opt/vllm",
    "limits": {
        "ready_seconds": 0, "drain_seconds": 120, "stall_seconds": 120, "unanswered_seconds": 60, "ladder_steps": 3, "restarts": 3,
        "restart_window_seconds": 3600,
    },
}  # fmt: skip
OLD_ENGINE = {"gpus": [{}] * 4, "docker": {"version": "20.10.24", "cdi": False, "images": {IMAGE: "sha256:1"}}}


def make(host=None, settings=None, **keys):
    return service.service(ARTICLE | keys, PLAN, host or HOST, SETTINGS | (settings or {}))


def test_the_articles_docker_run_hardened():
    assert make(supervisor="docker")["definition"]["command"] == [
        "docker", "run", "--detach", "--restart=always", "--pull=never", "--name=vllm-coder", "--device=nvidia.com/gpu=all", "--ipc=host",
        "--ulimit=memlock=-1", "--ulimit=stack=67108864", "--cpuset-cpus=0-55",
        "--security-opt=no-new-privileges", "--cap-drop=ALL", "--read-only", "--tmpfs=/tmp:exec", "--tmpfs=/root:exec",
        "--log-driver=json-file", "--log-opt=max-size=50m", "--log-opt=max-file=3", "--env-file=/etc/vllm/coder/environment",
        "--volume=/home/llm/model/qwen/Qwen3-32B-AWQ:/model/Qwen3-32B-AWQ:ro", "--volume=vllm-coder-cache:/root/.cache",
        "--publish=0.0.0.0:8888:8000", IMAGE,
    ]  # fmt: skip


def test_systemd_runs_the_same_container_in_the_foreground():
    docker, systemd = (make(supervisor=supervisor)["definition"]["command"] for supervisor in ("docker", "systemd"))
    assert [word for word in docker if word not in ("--detach", "--restart=always")] == [word for word in systemd if word != "--rm"]


def test_compose_makes_the_same_container():
    made = make(supervisor="compose")
    assert made["definition"]["command"] == ["docker", "compose", "--file", "/etc/vllm/coder/compose.yaml"]
    assert made["unit"] is None
    found = yaml.safe_load(made["compose"].replace("$$", "$"))
    engine = found["services"]["vllm"]
    assert engine["container_name"] == "vllm-coder" and engine["image"] == IMAGE and engine["command"] == ARGV
    assert engine["ports"] == ["0.0.0.0:8888:8000"] and engine["restart"] == "always" and engine["ipc"] == "host"
    assert engine["volumes"] == ["/home/llm/model/qwen/Qwen3-32B-AWQ:/model/Qwen3-32B-AWQ:ro", "cache:/root/.cache"]
    assert found["volumes"] == {"cache": {"name": "vllm-coder-cache"}}
    devices = engine["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "cdi", "device_ids": ["nvidia.com/gpu=all"], "capabilities": ["gpu"]}]
    assert (engine["read_only"], engine["cap_drop"], engine["security_opt"], engine["cpuset"]) == (True, ["ALL"], ["no-new-privileges"], "0-55")


def test_a_dollar_is_no_variable_of_compose():
    assert "--x=$$HOME" in service.compose_text({"command": ["--x=$HOME"]})


WHEEL = {"key": "flash-attn-1.0.9-1", "sha256": "964c", "root": "/var/lib/vllm/wheels", "build_seconds": 7200}
PROGRAMS = "/usr/local/lib/gpuhosts/wheel:/gpuhosts:ro"


@pytest.mark.parametrize(
    "strategy, volume, started, ready",
    [
        ("wheel", "/var/lib/vllm/wheels/flash-attn-1.0.9-1:/wheel:ro", ["wheel", "/wheel", "964c"], 600),
        (
            "build_on_start",
            "/var/lib/vllm/wheels/flash-attn-1.0.9-1-sources:/wheel:ro",
            ["build", "/wheel", "/root/.cache/gpuhosts-wheel/flash-attn-1.0.9-1"],
            7800,
        ),
    ],
)
def test_a_wheel_is_mounted_and_installed_before_the_engine_starts(strategy, volume, started, ready):
    expected = ["/gpuhosts/start.py", *started, "-m", "vllm.entrypoints.openai.api_server"]
    definition = make(attention_strategy=strategy, settings={"wheel": WHEEL})["definition"]
    command = definition["command"]
    assert command[command.index(IMAGE) - 1 :] == ["--entrypoint=python3", IMAGE, *expected]
    assert [word for word in command if word.startswith("--volume=")][-2:] == [f"--volume={PROGRAMS}", f"--volume={volume}"]
    assert definition["limits"]["ready_seconds"] == ready
    made = make(attention_strategy=strategy, supervisor="compose", settings={"wheel": WHEEL})["compose"]
    engine = yaml.safe_load(made)["services"]["vllm"]
    assert engine["entrypoint"] == ["python3", *expected] and engine["command"] == ARGV and engine["volumes"][-2:] == [PROGRAMS, volume]


def test_check_mode_shows_a_wheel_that_is_not_built_yet():
    wheel = {name: value for name, value in WHEEL.items() if name != "sha256"}
    assert "not-built-yet" in make(attention_strategy="wheel", settings={"wheel": wheel})["definition"]["command"]


def test_an_image_that_has_the_wheel_inside_is_an_image_like_any_other():
    derived = f"registry.example:5000/vllm@sha256:{'d' * 64}"
    definition = make(attention_strategy="image", settings={"wheel": {**WHEEL, "image": derived}})["definition"]
    plain = make()["definition"]
    assert definition["command"] == [derived if word == IMAGE else word for word in plain["command"]]
    assert definition["image"]["reference"] == derived
    made = make(attention_strategy="image", supervisor="compose", settings={"wheel": {**WHEEL, "image": derived}})["compose"]
    assert yaml.safe_load(made)["services"]["vllm"]["image"] == derived
    assert make(attention_strategy="image", settings={"wheel": {**WHEEL, "image": None}})["definition"]["image"]["reference"] == "not-built-yet"


@pytest.mark.parametrize("strategy", ["default", "xformers"])
def test_other_strategies_leave_the_container_as_it_is(strategy):
    assert make(attention_strategy=strategy) == make()


def test_an_old_engine_gets_the_runtime_under_every_supervisor():
    assert "--runtime=nvidia" in make(OLD_ENGINE)["definition"]["command"]
    engine = yaml.safe_load(make(OLD_ENGINE, supervisor="compose")["compose"])["services"]["vllm"]
    assert engine["runtime"] == "nvidia" and "deploy" not in engine


def test_native_is_the_engine_itself():
    made = make(runtime="native", gpus=[2, 3], cpuset_mems="1")
    definition = made["definition"]
    assert definition["command"] == ["/opt/vllm/0.8.5/bin/python3", "-m", "vllm.entrypoints.openai.api_server"]
    path = "/home/llm/model/qwen/Qwen3-32B-AWQ"
    assert definition["rungs"][0]["argv"] == ["--model", path, *ARGV[2:], "--host", "0.0.0.0", "--port", "8888"]
    assert definition["rungs"][1]["argv"][-6:] == ["--max-num-seqs", "32", "--host", "0.0.0.0", "--port", "8888"]
    assert definition["image"] is None
    for line in ("EnvironmentFile=/etc/vllm/coder/environment", "AllowedCPUs=0-55", "AllowedMemoryNodes=1", "LimitMEMLOCK=infinity", "NoNewPrivileges=true"):
        assert line in made["unit"].splitlines()
    assert "docker" not in made["unit"]
    made = make(runtime="native", settings={"native_engines": {"0.8.5": "/opt/vllm/0.8.5-0a1b2c3d4e5f"}})
    assert made["definition"]["command"][0] == "/opt/vllm/0.8.5-0a1b2c3d4e5f/bin/python3"
    native = ARTICLE | {"runtime": "native"}
    assert "CUDA_VISIBLE_DEVICES=2,3\n" in service.environment(native | {"gpus": [2, 3]}, PLAN)
    assert "CUDA_VISIBLE_DEVICES=0,1,2,3\n" in service.environment(native, PLAN)


def test_the_unit_calls_the_host_program():
    lines = make()["unit"].splitlines()
    for line in (
        "ExecStart=/usr/local/sbin/vllm-instance run coder",
        "ExecStop=/usr/local/sbin/vllm-instance stop coder",
        "ExecStopPost=/usr/local/sbin/vllm-instance exited coder",
        "TimeoutStopSec=150",
        "RestartPreventExitStatus=78",
        "Wants=docker.service",
    ):
        assert line in lines
    assert "Requires=docker.service" not in lines


def test_the_ladder_is_in_the_definition():
    rungs = make()["definition"]["rungs"]
    assert [rung["kv_tokens"] for rung in rungs] == [249184, 250000]
    assert rungs[0]["argv"] == ARGV
    assert rungs[1] == {"reason": "fewer sequences", "changes": {"max_num_seqs": 32}, "argv": [*ARGV, "--max-num-seqs", "32"], "kv_tokens": 250000}


def test_the_environment():
    assert service.environment(ARTICLE, PLAN, "planted-key") == (
        "HF_HUB_OFFLINE=1\nTRITON_CACHE_DIR=/root/.cache/triton\nCUDA_CACHE_PATH=/root/.cache/nv\nTORCHINDUCTOR_CACHE_DIR=/root/.cache/torchinductor\n"
        "VLLM_ATTENTION_BACKEND=XFORMERS\nVLLM_API_KEY=planted-key\n"
    )
    assert "VLLM_API_KEY" not in service.environment(ARTICLE, PLAN)


@pytest.mark.parametrize(("given", "expected"), [(0, 600), (1800, 1800)])
def test_how_long_a_start_may_take(given, expected):
    limits = SETTINGS["limits"] | {"ready_seconds": given}
    assert make(settings={"limits": limits})["definition"]["limits"]["ready_seconds"] == expected


@pytest.mark.parametrize(
    ("address", "expected"),
    [("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "127.0.0.1"), ("10.0.0.5", "10.0.0.5"), ("::", "[::1]"), ("fd00::1", "[fd00::1]")],
)
def test_where_the_host_asks_it(address, expected):
    assert service.url(8888, address) == f"http://{expected}:8888"


def test_a_private_ipc_namespace_with_its_own_size():
    command = make(settings={"ipc": "", "shm_size": "10g"})["definition"]["command"]
    assert "--shm-size=10g" in command and not any(word.startswith("--ipc") for word in command)


def test_no_cpuset_unless_asked():
    assert not any(word.startswith("--cpuset") for word in make(cpuset_cpus=None)["definition"]["command"])
    assert "--cpuset-mems=1" in make(cpuset_mems="1")["definition"]["command"]
