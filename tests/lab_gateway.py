"""The role gateway's files, rendered from its own variables, and HAProxy with them before simulated engines: for tests and the benchmark."""

import contextlib
import http.client
import json
import pathlib
import socket
import tempfile

import haproxy
import lab_engine
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.gpuhosts.inference.plugins.modules import haproxy_map
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.render import (
    host_plan,
)

ROLE = pathlib.Path(__file__).parents[1] / "roles/gateway"
CONFIG = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 4096, "intermediate_size": 12288, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 128, "num_hidden_layers": 36, "vocab_size": 151936, "max_position_embeddings": 40960, "torch_dtype": "float16",
}  # fmt: skip
CARD = {"index": 0, "name": "NVIDIA GeForce RTX 2080 Ti", "compute_capability": "7.5", "memory_total_bytes": 23622320128}
CODER = {"name": "coder", "model": "Qwen/Qwen3-8B", "port": 8888, "profile": "as_given", "options": {"max_model_len": 8192, "max_num_seqs": 64}}
CLIENTS = [{"name": "alice", "key": "a-key-of-20-characters"}, {"name": "bob", "key": "another-of-20-characters", "requests_per_minute": 5}]
KEY = "a-key-of-20-characters"
ENGINE_KEY = "the-engines-own-key"
CHAT = {"model": "coder", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}


def host(*instances, rung=0, **variables):
    """A GPU host as hostvars has it after its plan was made."""
    found = host_plan(
        list(instances), {"gpus": [CARD], "memory_bytes": 2**39, "driver_version": "570.153.02"}, {"Qwen/Qwen3-8B": CONFIG, "other/model": CONFIG}
    )
    states = {instance["name"]: {"state": {"rung": rung}} for instance in instances}
    return {
        "ansible_host": "10.0.0.1",
        "vllm_instances": list(instances),
        "__vllm_plan": found,
        "ansible_facts": {"gpuhosts_services": {"instances": states}},
    } | variables


def value(expression, hosts=None, facts=None, **variables):
    """What the role makes of an expression, or of a template by its name, on gw01, a gateway for gpu01 and gpu02."""
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


def write(directory, hosts=None, **variables):
    """The gateway's files in one directory, for an ordinary process; the path of its configuration."""
    for path, text in value("__gateway_files", hosts, **variables).items():
        (directory / pathlib.Path(path).name).write_text(haproxy.here(text, directory), encoding="utf-8")
    return directory / "haproxy.cfg"


class Gateway:
    """A started gateway, its engines, and ways to ask it."""

    def __init__(self, port, process, engines):
        self.port, self.process, self.engines = port, process, engines
        self.admin = str(process.socket)

    def ask(self, path="/v1/chat/completions", body=None, method=None, key=KEY, headers=None):
        """(status, headers, body as JSON where it is that)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            data = json.dumps(body).encode() if body is not None else None
            headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {}) | (headers or {})
            # An answer may come before all is sent: httpx reads it all the same.
            with contextlib.suppress(BrokenPipeError):
                connection.request(method or ("POST" if body is not None else "GET"), path, data, headers)
            response = connection.getresponse()
            text = response.read().decode()
            return response.status, response.headers, json.loads(text) if text[:1] == "{" else text

    def admin_command(self, command):
        return haproxy_map.ask(self.admin, command)

    def lines(self):
        """The access log."""
        return self.process.log.read_text().splitlines()


def launcher(base):
    """with launcher(directory)(*options of the engines, contexts=(4096, 4096), **variables) as gateway: a replica for each context, in tokens."""
    engine = lab_engine.launcher(base)

    @contextlib.contextmanager
    def started(*options, contexts=(4096, 4096), key=ENGINE_KEY, **variables):
        with contextlib.ExitStack() as stack:
            environment = {"VLLM_API_KEY": key} if key else None
            engines = [stack.enter_context(engine("--max-model-len", str(context), *options, env=environment)) for context in contexts]
            hosts = {
                f"gpu{number:02}": host(
                    CODER | {"port": each.port, "options": {"max_model_len": context, "max_num_seqs": 64}},
                    ansible_host="127.0.0.1", vllm_api_key=key,
                )
                for number, (each, context) in enumerate(zip(engines, contexts, strict=True), 1)
            }  # fmt: skip
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            directory = pathlib.Path(tempfile.mkdtemp(dir=base))
            path = write(directory, hosts, gateway_listen_address="127.0.0.1", gateway_port=port, **variables)
            process = stack.enter_context(haproxy.Running(path, directory / "gpuhosts.sock"))
            yield Gateway(port, process, engines)

    return started
