from ansible_collections.gpuhosts.inference.plugins.filter.missing_packages import missing_packages


def test_absent_and_other_versions_are_missing():
    installed = {"libcuda1": "570.153.02-1", "docker.io": "26.1.5+dfsg1-9", "cuda-toolkit-12-8": "12.8.10-1"}
    wanted = {"libcuda1": "570.153.02", "nvidia-smi": "570.153.02", "cuda-toolkit-12-8": "12.8.1"}
    assert missing_packages(wanted, installed) == ["nvidia-smi=570.153.02-*", "cuda-toolkit-12-8=12.8.1-*"]


def test_any_version_will_do():
    assert missing_packages({"bash": None, "zsh": None}, {"bash": "5.2"}) == ["zsh"]
