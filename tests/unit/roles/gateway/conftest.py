"""The role's files, rendered from its own variables."""

import pathlib

import haproxy
import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.render import host_plan

ROLE = pathlib.Path(__file__).parents[4] / "roles/gateway"
CONFIG = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 4096, "intermediate_size": 12288, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 128, "num_hidden_layers": 36, "vocab_size": 151936, "max_position_embeddings": 40960, "torch_dtype": "float16",
}  # fmt: skip
CARD = {"index": 0, "name": "NVIDIA GeForce RTX 2080 Ti", "compute_capability": "7.5", "memory_total_bytes": 23622320128}
CODER = {"name": "coder", "model": "Qwen/Qwen3-8B", "port": 8888, "profile": "as_given", "options": {"max_model_len": 8192, "max_num_seqs": 64}}
CLIENTS = [{"name": "alice", "key": "a-key-of-20-characters"}, {"name": "bob", "key": "another-of-20-characters", "requests_per_minute": 5}]


@pytest.fixture(scope="session")
def host():
    """host(*instances, rung=0, **variables): a GPU host as hostvars has it after its plan was made."""

    def made(*instances, rung=0, **variables):
        found = host_plan(list(instances), {"gpus": [CARD], "memory_bytes": 2**39, "driver_version": "570.153.02"}, {"Qwen/Qwen3-8B": CONFIG, "other/model": CONFIG})
        states = {instance["name"]: {"state": {"rung": rung}} for instance in instances}
        return {
            "ansible_host": "10.0.0.1",
            "vllm_instances": list(instances),
            "__vllm_plan": found,
            "ansible_facts": {"gpuhosts_services": {"instances": states}},
        } | variables

    return made


@pytest.fixture(scope="session")
def value(host):
    """value(expression or template's name, hosts=None, facts={}, **variables): what the role makes of it on gw01, a gateway for gpu01 and gpu02."""

    def template(expression, hosts=None, facts=None, **variables):
        loader = DataLoader()
        loader.set_basedir(str(ROLE))
        hosts = hosts or {"gpu01": host(CODER), "gpu02": host(CODER, ansible_host="10.0.0.2")}
        known = {"inventory_hostname": "gw01", "gateway_servers": ["gw01"], "gateway_gpu_hosts": list(hosts), "gateway_clients": CLIENTS}
        known["gateway_plaintext"] = True
        for part in ("defaults", "vars"):
            found = loader.load_from_file(str(ROLE / part / "main.yml"), trusted_as_template=True)
            known = found | known if part == "defaults" else known | found
        gpuhosts = {"packages": {"haproxy": "2.6"}, "gateway": {"files": {}, "units": {}}} | (facts or {})
        known |= {"ansible_facts": {"gpuhosts": gpuhosts}, "hostvars": hosts, "ansible_search_path": [str(ROLE)], "ansible_check_mode": False} | variables
        text = (ROLE / "templates" / expression).read_text(encoding="utf-8") if expression.endswith(".j2") else "{{ " + expression + " }}"
        return Templar(loader, variables=known).template(trust_as_template(text))

    return template


@pytest.fixture(scope="session")
def written(value):
    """written(directory, hosts=None, **variables): the gateway's files in one directory, for an ordinary process; the path of its configuration."""

    def write(directory, hosts=None, **variables):
        for path, text in value("__gateway_files", hosts, **variables).items():
            (directory / pathlib.Path(path).name).write_text(haproxy.here(text, directory), encoding="utf-8")
        return directory / "haproxy.cfg"

    return write
