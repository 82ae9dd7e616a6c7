"""A bundle is collected where the internet is, and a bare host is brought to serving from it alone. The tests follow on one another."""

import json
import os
import re
import subprocess

import lab_play
import pytest
import yaml

LAB = os.environ["LAB_NAME"]
INVENTORIES = ("inventories/lab", "molecule/bundle/inventory")
BUNDLE = "/srv/bundle"
# The lab's public registry.
UPSTREAM = {"image_registry_upstream": "mirror:5000", "image_registry_upstream_tls": False}


def machine(name):
    return lab_play.Machine(f"{LAB}-{name}")


def play(playbook, host=None, **variables):
    variables = {"bundle_path": BUNDLE, **UPSTREAM, **variables}
    return lab_play.play(playbook, "--extra-vars", json.dumps(variables), host=host, inventories=INVENTORIES, timeout=1800)


def collect():
    return play("playbooks/bundle.yml")


@pytest.fixture(scope="module")
def gpu01():
    """The host that is online and serves."""
    code, output = play("site.yml", host="gpu01")
    assert code == 0, output
    return machine("gpu01")


@pytest.fixture(scope="module")
def gpu02():
    """The host at the site, bare."""
    return machine("gpu02")


def test_a_host_that_serves_nothing_yet_is_no_source(gpu02):
    code, output = play("playbooks/bundle.yml", bundle_host="gpu02")
    assert code != 0
    assert "gpu02 has no Docker Engine: what made a host serve can be collected from it when it does." in output


def test_everything_is_collected_and_told(gpu01):
    code, output = collect()
    assert code == 0, output
    assert re.search(rf"gpu01:{BUNDLE} is whole, with \d+ packages, 1 images and 1 models: ", output), output
    gpu01.run(f"cd {BUNDLE} && sha256sum --check --quiet SHA256SUMS")
    parts = gpu01.out(f"cd {BUNDLE} && ls -d apt/*/ registry/docker models/*/* wheels/ansible-core variables.yml requirements.txt").split()
    assert {"apt/mirror/", "apt/deb.debian.org/", "models/gpuhosts-lab/tiny-qwen3", "wheels/ansible-core"} <= set(parts)


def test_a_second_time_nothing_is_brought(gpu01):
    code, output = collect()
    assert (code, lab_play.recap(output)["gpu01"]["changed"]) == (0, 0), output


def test_a_bundle_that_was_damaged_on_the_way_is_refused(gpu01):
    name = gpu01.out(f"cd {BUNDLE} && find models -name config.json")
    gpu01.run(f"cp -p {BUNDLE}/{name} /tmp/kept && echo damaged >> {BUNDLE}/{name}")
    code, output = play("playbooks/bundle_serve.yml", bundle_address="gpu01")
    gpu01.run(f"cp -p /tmp/kept {BUNDLE}/{name}")
    assert code != 0
    assert f"gpu01:{BUNDLE} is not what was collected: ./{name}: FAILED" in output
    assert lab_play.recap(output)["gpu01"]["changed"] == 0


def test_a_bare_host_is_brought_to_serving_from_the_bundle_alone(gpu01, gpu02):
    variables = yaml.safe_load(gpu01.out(f"cat {BUNDLE}/variables.yml")) | {"bundle_address": "gpu01"}
    # Nothing but the other host is reached any more: neither the lab's outside world nor the real one.
    subprocess.run(["docker", "stop", f"{LAB}-mirror"], check=True, capture_output=True)
    gpu02.run("ip route del default")
    assert gpu02.run("curl --silent --max-time 5 http://deb.debian.org/", check=False).returncode != 0
    code, output = play("playbooks/bundle_serve.yml", **variables)
    assert code == 0, output
    code, output = play("site.yml", host="gpu02", **variables)
    assert code == 0, output
    assert "coder on gpu02: vLLM 0.8.5 answered" in output
    # What hosts that converge themselves get their Ansible from.
    found = gpu02.out("curl --silent http://gpu01:8080/wheels/ansible-core/")
    assert "ansible_core-" in found


def test_a_second_run_there_changes_nothing(gpu01, gpu02):
    variables = yaml.safe_load(gpu01.out(f"cat {BUNDLE}/variables.yml")) | {"bundle_address": "gpu01"}
    code, output = play("playbooks/bundle_serve.yml", **variables)
    assert (code, {counts["changed"] for counts in lab_play.recap(output).values()}) == (0, {0}), output
    code, output = play("site.yml", host="gpu02", **variables)
    assert (code, lab_play.recap(output)["gpu02"]["changed"]) == (0, 0), output
