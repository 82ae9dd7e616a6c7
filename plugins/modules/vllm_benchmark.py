#!/usr/bin/python
# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_benchmark
short_description: Puts load on an instance with the engine's own tool, once
version_added: "0.1.0"
description:
  - Runs C(vllm bench serve) of the engine that serves, in its container or from its virtual environment, and returns what the tool measured.
  - Meanwhile it reads the engine's metrics and the cards' memory. What both say is returned as it was found; nothing is judged.
  - The tool sends one request by itself before it measures. That one is in the engine's metrics too.
author:
  - The gpuhosts.inference authors (@gpuhosts)
options:
  name:
    description: The instance, as in C(vllm_instances).
    type: str
    required: true
  options:
    description: Options of C(vllm bench serve) by their long names with underscores, such as C(max_concurrency).
    type: dict
    default: {}
  url:
    description:
      - Where the requests go, as seen from where the tool runs, for example a gateway's address.
      - Unset is the instance itself.
    type: str
  api_key:
    description: Key for O(url). Unset is the instance's own, which is read on the host.
    type: str
  beside_others:
    description: Whether to measure while the instance works for others. Otherwise that is an error.
    type: bool
    default: false
  timeout:
    description: Seconds that the tool may take.
    type: int
    default: 3600
attributes:
  check_mode:
    description: Can run in check mode and return what it would outside of it.
    support: full
    details: Puts no load on anything in check mode.
  diff_mode:
    description: Returns what it would change.
    support: none
  platform:
    description: The systems it runs on.
    platforms: debian
    support: full
"""

EXAMPLES = r"""
- name: Ten clients at once, 32 K tokens each, of which 94 % are the same for all
  gpuhosts.inference.vllm_benchmark:
    name: coder
    options:
      max_concurrency: 10
      num_prompts: 40
      random_prefix_len: 30000
      random_input_len: 1900
      random_output_len: 32
  register: measured
"""

RETURN = r"""
tool:
  description: What the tool measured, by its own names. Lists with a value for each request are left out.
  returned: success
  type: dict
  sample: {completed: 40, duration: 22.5, output_throughput: 56.9, mean_e2el_ms: 5630.0}
errors:
  description: How many requests failed with which error.
  returned: success
  type: dict
  sample: {Bad Request: 2}
metrics:
  description: Values of the engine's C(vllm:) metrics, by name and without their labels. Empty where it has none.
  returned: success
  type: dict
  contains:
    before:
      description: Before the tool was started.
      type: dict
    after:
      description: After it had ended.
      type: dict
    peak:
      description: The highest value that was seen meanwhile.
      type: dict
cards:
  description: The most memory in use that was seen on each of the instance's cards, in bytes, by the card's index. Null where the driver does not tell.
  returned: success
  type: dict
  sample: {"0": 22334668800}
instance:
  description: What was measured.
  returned: success
  type: dict
  contains:
    engine_version:
      description: Version of the engine.
      type: str
    image:
      description: Reference and id of the image, null without a container.
      type: dict
    model:
      description: Repository, revision, commit and path.
      type: dict
    gpus:
      description: Indices of its cards.
      type: list
      elements: int
    rung:
      description: Step of the ladder that it runs on.
      type: int
    argv:
      description: The engine's arguments on that step.
      type: list
      elements: str
    environment:
      description: What is set beside them. Keys and tokens are left out.
      type: dict
"""

import collections
import json
import os
import threading

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.process import get_bin_path
from ansible.module_utils.urls import open_url

from ansible_collections.gpuhosts.inference.plugins.module_utils import child, nvidia_smi, vllm_log, vllm_metrics, vllm_store

ROOT = "/"  # the tests' to move
LOOK_SECONDS = 2
ANSWER_SECONDS = 10
ENGINE_PORT = 8000
# Beside the tool's result, on standard error, go its words. The result's own name would be made of the time.
SCRIPT = 'kept=$(mktemp -d) && trap "rm -rf $kept" EXIT && "$@" --save-result --result-dir "$kept" --result-filename result.json >&2 && cat "$kept/result.json"'
SILENT = ("input_lens", "output_lens", "ttfts", "itls", "generated_texts", "errors")


class Failure(Exception):
    """Nothing was measured; the text says what to do."""


def arguments(options):
    """Options as the tool's command line takes them. True is a flag."""
    words = []
    for name, value in options.items():
        if value is not False and value is not None:
            words += ["--" + name.replace("_", "-")] + ([] if value is True else [str(value)])
    return words


def environment(text):
    """The variables of an environment file, which the collection itself has written."""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def command(definition, options, url, timeout):
    """What runs the tool where the engine runs. The key is in the environment: Docker's client hands it on by its name."""
    native = definition["runtime"] == "native"
    inside = ["timeout", str(timeout), os.path.join(os.path.dirname(definition["command"][0]), "vllm") if native else "vllm", "bench", "serve"]
    model = definition["rungs"][0]["argv"][1]
    inside += ["--base-url", url or (definition["url"] if native or "--network=host" in definition["command"] else f"http://127.0.0.1:{ENGINE_PORT}")]
    inside += ["--model", model, "--served-model-name", definition["served_model_name"], "--disable-tqdm", *arguments(options)]
    where = [] if native else [get_bin_path("docker"), "exec", "--env=OPENAI_API_KEY", f"vllm-{definition['name']}"]
    return [*where, "sh", "-c", SCRIPT, "sh", *inside]


def read_metrics(url):
    """What vllm_metrics reads, {} where nobody answers."""
    try:
        text = open_url(url + "/metrics", timeout=ANSWER_SECONDS, use_proxy=False, use_netrc=False).read().decode("utf-8", "replace")
    except Exception:  # an engine that has ended says so to the tool
        return {}
    return vllm_metrics.read(text)


def read_memory(gpus):
    """{index: bytes in use} of these cards, {} without an answer of nvidia-smi."""
    try:
        text = child.run([get_bin_path("nvidia-smi"), *nvidia_smi.ARGUMENTS["usage"]], ANSWER_SECONDS)[1]
    except (ValueError, OSError, child.TimedOut):
        return {}
    return {index: usage["memory_used_bytes"] for index, usage in nvidia_smi.parse_usage(text).items() if index in gpus}


class Watch(threading.Thread):
    """Looks at engine and cards until it is ended; keeps the highest values."""

    def __init__(self, url, gpus):
        super().__init__(daemon=True)
        self.url, self.gpus, self.metrics, self.memory, self.over = url, gpus, {}, {}, threading.Event()

    def run(self):
        while True:
            self._keep(self.metrics, read_metrics(self.url))
            self._keep(self.memory, read_memory(self.gpus))
            if self.over.wait(LOOK_SECONDS):
                return

    @staticmethod
    def _keep(highest, found):
        for name, value in found.items():
            highest[name] = value if highest.get(name) is None else max(highest[name], value or 0)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exception):
        self.over.set()
        self.join()


def why(words, status, definition, url, timeout):
    """What the tool's last words mean, as a sentence for the operator."""
    name, lines = definition["name"], [line.strip() for line in words.splitlines() if line.strip()]
    last = (lines or [f"exit status {status}"])[-1]
    where = url or f"the instance {name}"
    if "No such container" in words or "is not running" in words:
        return f"The container of {name} does not run: vllm-instance status {name} on the host says why."
    if status in (126, 127) or "invalid choice: 'bench'" in words or "ModuleNotFoundError" in words or "ImportError" in words:
        return f"The engine of {name}, vLLM {definition['engine_version']}, has no load tool, vllm bench serve ({last}): benchmark an engine that has it."
    if status == 124:
        return f"The load on {name} was not done after {timeout} s and was ended: raise benchmark_timeout, or ask for fewer prompts."
    if last.endswith("Unauthorized") or last.endswith("Forbidden"):
        return f"The API key is refused by {where}: set benchmark_api_key to the one that it takes."
    if last.endswith("Bad Request"):
        return f"The first request is refused by {where} as a bad one, mostly because prompt and answer are longer than max_model_len: lower random_input_len."
    if "Cannot connect to host" in last or "Connect call failed" in last:
        return f"Nobody answers at {where}: vllm-instance status {name} on the host says what became of the engine."
    return f"vllm bench serve failed on {name}: {last}"


def result_of(output, words, status, definition, params):
    """(the tool's figures, {error: how often}). Raises Failure."""
    try:
        found = json.loads(output) if status == 0 else None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Failure(why(words, status, definition, params["url"], params["timeout"]))
    # A traceback's last line is the error.
    errors = collections.Counter(error.strip().splitlines()[-1] for error in found.get("errors") or [] if error and error.strip())
    return {key: value for key, value in found.items() if key not in SILENT}, dict(errors)


def measure(params, service):
    """The module's result. Raises Failure."""
    definition, given = service["definition"], environment(service["environment"])
    before = read_metrics(definition["url"])
    others = int(sum(before.get(name, 0) for name in vllm_metrics.REQUESTS))
    if others and not params["beside_others"]:
        raise Failure(
            f"{definition['name']} works on {others} requests of others, whose load would be measured too: try again when it is idle, or set "
            "benchmark_beside_others."
        )
    key = params["api_key"] or (None if params["url"] else given.get("VLLM_API_KEY"))
    os.environ.pop("OPENAI_API_KEY", None)
    if key:
        os.environ["OPENAI_API_KEY"] = key
    try:
        with Watch(definition["url"], definition["gpus"]) as watch:
            words = command(definition, params["options"], params["url"], params["timeout"])
            status, output, errors = child.run(words, params["timeout"] + 60)
    except child.TimedOut:
        status, output, errors = 124, "", ""
    except (OSError, ValueError) as error:
        raise Failure(f"The load tool of {definition['name']} cannot be started: {error}")
    tool, failed = result_of(output, errors, status, definition, params)
    state = vllm_store.read_json(os.path.join(ROOT, vllm_store.STATE, definition["name"], "state.json")) or {}
    rung = min(state.get("rung", 0), len(definition["rungs"]) - 1)
    return {
        "tool": tool,
        "errors": failed,
        "metrics": {"before": before, "after": read_metrics(definition["url"]), "peak": watch.metrics},
        "cards": watch.memory,
        "instance": {
            "engine_version": definition["engine_version"],
            "image": definition["image"],
            "model": definition["model"],
            "gpus": definition["gpus"],
            "rung": rung,
            "argv": definition["rungs"][rung]["argv"],
            "environment": {name: value for name, value in given.items() if not vllm_log.SECRET_NAME.search(name)},
        },
    }


def main():
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "options": {"type": "dict", "default": {}},
            "url": {"type": "str"},
            "api_key": {"type": "str", "no_log": True},
            "beside_others": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 3600},
        },
        supports_check_mode=True,
    )
    name = module.params["name"]
    if module.check_mode:
        module.exit_json(changed=False, skipped=True, msg=f"Check mode: no load is put on {name}.")
    try:
        service = vllm_store.Store(name, ROOT).current()
        if service is None:
            raise Failure(f"There is no instance {name} on this host: run playbooks/serve.yml first.")
        module.exit_json(changed=False, **measure(module.params, service))
    except (Failure, vllm_store.StoreError) as failure:
        module.fail_json(msg=str(failure))


if __name__ == "__main__":
    main()
