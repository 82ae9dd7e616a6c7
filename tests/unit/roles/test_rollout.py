"""A rollout does what site.yml does, in its order."""

import pathlib

import yaml

CHECKOUT = pathlib.Path(__file__).parents[3]


def read(path):
    return yaml.safe_load((CHECKOUT / path).read_text(encoding="utf-8"))


def roles(node):
    """(role, entry point) of everything that tasks or plays call, in order; a role by a loop's name is one for each item."""
    if isinstance(node, list):
        return [found for one in node for found in roles(one)]
    if not isinstance(node, dict):
        return []
    if isinstance(node.get("role"), str):
        return [(node["role"], "main.yml")]
    for word in ("ansible.builtin.include_role", "ansible.builtin.import_role"):
        if word in node:
            names = [node[word]["name"].replace("{{ __rollout_role }}", item) for item in node.get("loop", [""])]
            return [(name, node[word].get("tasks_from", "main.yml")) for name in names]
    return [found for key in ("pre_tasks", "roles", "tasks", "block") for found in roles(node.get(key, []))]


def short(found):
    return found[0].removeprefix("gpuhosts.inference."), found[1]


def test_it_calls_the_roles_of_the_site_in_the_same_order():
    site = [play["ansible.builtin.import_playbook"] for play in read("playbooks/site.yml")]
    wanted = [found for playbook in site for found in roles(read(f"playbooks/{playbook}"))]
    # What only makes variables known, and what is asked before: the preflight has looked at the models. The gate asks for more than verify.yml does.
    # The gateway itself is no GPU host: a rollout only takes hosts out there.
    left_out = {("vllm", "variables.yml"), ("model_weights", "facts.yml"), ("vllm", "verify.yml"), ("vllm", "known.yml"), ("gateway", "converge.yml")}
    # Hosts that hold an instance together are refused.
    left_out |= {("ray_cluster", "main.yml"), ("ray_cluster", "verify.yml")}
    own = {("gateway", "drain.yml"), ("gateway", "undrain.yml")}
    found = roles(read("roles/rollout/tasks/converge.yml")[0]["block"])
    assert [one for one in found if short(one) not in own] == [one for one in wanted if short(one) not in left_out]


def test_what_makes_a_host_due_has_every_role_but_the_lab_and_the_rollout_itself():
    pattern = read("roles/rollout/vars/main.yml")["__rollout_variables"]
    called = {name.rpartition(".")[2] for name, dummy in roles(read("roles/rollout/tasks/converge.yml")[0]["block"])}
    for role in called | {"cuda_repository", "flash_attn_wheel"}:
        assert role in pattern
