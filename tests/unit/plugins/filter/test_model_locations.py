"""The models of a host, each once."""

from ansible_collections.gpuhosts.inference.plugins.filter.model_locations import FilterModule

model_locations = FilterModule().filters()["model_locations"]


def test_each_model_once_with_its_first_revision():
    instances = [
        {"name": "coder", "model": "Qwen/Qwen3-32B-AWQ"},
        {"name": "draft", "model": "Qwen/Qwen3-4B-AWQ", "revision": "v2"},
        {"name": "tester", "model": "Qwen/Qwen3-32B-AWQ", "revision": "v3"},
    ]
    assert model_locations(instances, "/srv/models/") == [
        {"repo_id": "Qwen/Qwen3-32B-AWQ", "revision": "main", "path": "/srv/models/qwen/Qwen3-32B-AWQ"},
        {"repo_id": "Qwen/Qwen3-4B-AWQ", "revision": "v2", "path": "/srv/models/qwen/Qwen3-4B-AWQ"},
    ]


def test_what_is_no_instance_is_left_out():
    assert model_locations([{"model": None}, {"name": "coder"}, "coder", {"model": 3}, {"model": ""}], "/srv") == []
    assert model_locations({"model": "a/b"}, "/srv") == []
    assert model_locations(None, "/srv") == []
