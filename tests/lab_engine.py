"""The simulated engine as a process on a loopback port, for the tests that speak to one."""

import contextlib
import http.client
import json
import pathlib
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "num_hidden_layers": 2,
    "vocab_size": 512,
    "max_position_embeddings": 40960,
    "torch_dtype": "float16",
}


class Engine:
    """A started process and ways to speak to it."""

    def __init__(self, process, port, log):
        self.process, self.port, self._log = process, port, log

    def log(self):
        return self._log.read_bytes().decode().replace("\r\n", "\n")

    def request(self, method, path, body=None, headers=None, timeout=20):
        """Status, text."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
            connection.request(method, path, data, {"Content-Type": "application/json"} | (headers or {}))
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def post(self, path, body, **arguments):
        status, text = self.request("POST", path, body, **arguments)
        return status, json.loads(text)

    def events(self, path, body):
        status, text = self.request("POST", path, body | {"stream": True})
        assert status == 200
        data = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
        assert data.pop() == "[DONE]"
        return [json.loads(event) for event in data]

    def metrics(self):
        """Samples by name and labels."""
        status, text = self.request("GET", "/metrics")
        assert status == 200
        return dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))

    def metric(self, name):
        return float(self.metrics()[f'vllm:{name}{{model_name="coder"}}'])

    def tell(self, fault):
        return self.post("/simulated/fault", {"fault": fault})

    def wait(self, condition):
        deadline = time.monotonic() + 15
        while not condition():
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.02)

    def healthy(self):
        try:
            return self.request("GET", "/health")[0] == 200
        except ConnectionError:
            assert self.process.poll() is None, self.log()
            return False


def launcher(base):
    """A context manager that starts an engine, waits until it is healthy, has ended (`exit`) or has logged a text, and ends it.

    base: an empty directory for its model, its logs and its state.
    """
    (base / "planner").symlink_to(ROOT / "plugins/plugin_utils/planner")
    model = base / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(CONFIG))
    (model / "model.safetensors").write_bytes(bytes(1000))
    path = f"{base}:{ROOT / 'roles/lab/files/engine_simulated'}"

    @contextlib.contextmanager
    def start(*arguments, model=model, env=None, until="healthy"):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [
            sys.executable,
            "-m",
            "vllm.entrypoints.openai.api_server",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--model",
            str(model),
            "--served-model-name",
            "coder",
            *arguments,
        ]
        environment = {
            "PATH": str(base),
            "PYTHONPATH": path,
            "PYTHONDONTWRITEBYTECODE": "1",
            "GPUHOSTS_SIMULATED_STATE": str(base / "state"),
        }
        log = base / f"{port}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment | (env or {}), cwd=base)
        engine = Engine(process, port, log)
        try:
            if until == "healthy":
                engine.wait(engine.healthy)
            elif until == "exit":
                process.wait(15)
            else:
                engine.wait(lambda: until in engine.log())
            yield engine
        finally:
            process.kill()
            process.wait()

    return start
