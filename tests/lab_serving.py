"""A simulated host whose engine can be told to fail, and what is done to it: what the tests of molecule/simulated share."""

import json
import os
import shlex
import threading
import urllib.error
import urllib.request

import lab_play

LAB = os.environ["LAB_NAME"]
PORTS = {"gpu01": int(os.environ["LAB_PORT"]), "gpu02": int(os.environ["LAB_PORT"]) + 1}
CODER = {
    "name": "coder",
    "model": "gpuhosts-lab/tiny-qwen3",
    "port": 8888,
    "profile": "as_given",
    "options": {"max_model_len": 4096, "max_num_seqs": 64, "enable_prefix_caching": True},
}
# Short, so that a test sees in seconds what an operator sees in minutes.
SHORT = {"vllm_ready_timeout": 60, "vllm_stall_seconds": 4, "vllm_unanswered_seconds": 10, "vllm_restarts": 1, "vllm_drain_seconds": 10}


def instance(**keys):
    """The scenario's instance with other keys; options and env are added to."""
    return {**CODER, **keys, "options": CODER["options"] | keys.get("options", {})}


class Host:
    """A simulated host, and what is done to it: playbooks, commands, requests."""

    def __init__(self, name):
        self.name = name
        self.machine = lab_play.Machine(f"{LAB}-{name}")
        self.url = f"http://127.0.0.1:{PORTS[name]}"

    def serve(self, *instances, playbook="playbooks/serve.yml", arguments=(), **variables):
        """Run a playbook with other instances; (exit status, output)."""
        extra = json.dumps({"vllm_instances": list(instances), **SHORT, **variables})
        return lab_play.play(playbook, "--extra-vars", extra, *arguments, host=self.name)

    def status(self, name="coder"):
        """What the host program says of an instance."""
        return json.loads(self.machine.out(f"vllm-instance status {name} --json"))

    def definition(self, name="coder"):
        return json.loads(self.machine.out(f"cat /etc/vllm/{name}/definition.json"))

    def generation(self, name="coder"):
        return int(self.machine.out(f"cat /etc/vllm/{name}/generation"))

    def started(self, container="vllm-coder"):
        """When the container was started: another time is another start."""
        return self.machine.out(f"docker inspect --format '{{{{.State.StartedAt}}}}' {container}")

    def ask(self, path="/v1/chat/completions", timeout=30, **body):
        """The status of a request to the instance at port 8888, None where nobody answers."""
        body = body or {"model": "coder", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                answer.read()
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code
        except (OSError, ValueError):
            return None

    def fault(self, name):
        """Tell the engine to fail."""
        return self.ask("/simulated/fault", fault=name)

    def until(self, command, seconds=90):
        """Wait until a command on the host succeeds."""
        self.machine.run(f"timeout {seconds} bash -c {shlex.quote(f'until {command}; do sleep 0.3; done')}")


class Traffic(threading.Thread):
    """One client that asks again and again, without a pause; `answers` has each request's status (None: no answer) and how long it took to be accepted."""

    def __init__(self, host):
        super().__init__(daemon=True)
        self.host, self.answers, self.over = host, [], threading.Event()

    def run(self):
        while not self.over.is_set():
            self.answers.append(self.host.ask())
            self.over.wait(0.02)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exception):
        self.over.set()
        self.join(60)
