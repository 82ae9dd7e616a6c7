from ansible_collections.gpuhosts.inference.plugins.filter.matching_packages import matching_packages

INSTALLED = {"libcuda1": "570.153.02-1", "nvidia-smi": "575.57.08-1", "nvidia-container-toolkit": "1.17.8-1", "bash": "5.2"}


def test_names_and_versions():
    assert matching_packages(INSTALLED, "*nvidia* libcuda1", "[0-9]{3}[.]") == {"libcuda1": "570.153.02-1", "nvidia-smi": "575.57.08-1"}
    assert matching_packages(INSTALLED, "*nvidia*") == {"nvidia-smi": "575.57.08-1", "nvidia-container-toolkit": "1.17.8-1"}
    assert matching_packages(INSTALLED, "", "5") == {}
