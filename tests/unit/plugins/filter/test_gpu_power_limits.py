"""The filters of gpu_tuning, as Ansible calls them."""

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.gpuhosts.inference.plugins.filter import gpu_clock_problems, gpu_power_limits

CARDS = [
    {
        "index": 0, "uuid": "GPU-a", "name": "Tesla T4", "compute_capability": "7.5", "power_limit_watts": 70.0,
        "power_min_limit_watts": 60.0, "power_default_limit_watts": 70.0, "power_max_limit_watts": 70.0,
    }
]  # fmt: skip


def test_power_limits():
    limits = gpu_power_limits.FilterModule().filters()["gpu_power_limits"]
    assert limits(CARDS, limit=65) == {"limits": {"GPU-a": 65}, "changes": ["GPU 0: 70 W to 65 W"], "problems": []}
    for cards, by_card in ((None, None), ([{}], None), (CARDS, [150])):
        with pytest.raises(AnsibleFilterError, match="wants the cards as gpu_facts returns them"):
            limits(cards, by_card=by_card)


def test_clock_problems():
    problems = gpu_clock_problems.FilterModule().filters()["gpu_clock_problems"]
    assert problems(CARDS, graphics=[300, 1500]) == []
    with pytest.raises(AnsibleFilterError, match="wants the cards as gpu_facts returns them"):
        problems([{}], graphics=[300, 1500])
