"""What a task's process does not have to load again: seen in a process of its own, because this one has loaded everything already."""

from __future__ import annotations

import pathlib
import subprocess
import sys

CHECKOUT = pathlib.Path(__file__).parents[4]
FILTERS = {f"ansible_collections.gpuhosts.inference.plugins.filter.{path.stem}" for path in CHECKOUT.glob("plugins/filter/*.py")}
PROGRAM = """
import sys
from ansible.plugins.loader import callback_loader, init_plugin_loader
init_plugin_loader()
callback_loader.get("gpuhosts.inference.preload").v2_playbook_on_start(None)
print(*sys.modules)
"""


def test_the_controller_has_every_filter_before_it_forks_and_nothing_slow_with_them():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, cwd=CHECKOUT)
    loaded = set(done.stdout.split())
    assert FILTERS <= loaded
    # It takes longer than all filters together, and one of them plots.
    assert not {"matplotlib", "numpy"} & loaded
