"""What is shown while a wheel is built."""

import types

from ansible_collections.gpuhosts.inference.plugins.action import wheel_build
from ansible_collections.gpuhosts.inference.plugins.plugin_utils import slices as sliced


def test_each_step_is_shown_once(monkeypatch):
    running = [{"step": 0, "steps": 0, "jobs": 4}, {"step": 1, "steps": 9, "jobs": 4}, {"step": 1, "steps": 9, "jobs": 4}, {"step": 1, "steps": 9, "jobs": 2}]
    outcomes = [{"resume": {"name": "x"}, "status": status} for status in running] + [{"changed": True, "status": {"state": "built"}}]
    lines, slices, clock = [], [], iter(range(0, 100, 10))
    action = wheel_build.ActionModule.__new__(wheel_build.ActionModule)
    action._task = types.SimpleNamespace(args={"name": "flash-attn-1.0.9-62af"})
    action._display = types.SimpleNamespace(display=lambda text, **unused: lines.append(text))
    monkeypatch.setattr(wheel_build.SlicedAction, "run", lambda *unused: {})
    monkeypatch.setattr(sliced.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(action, "_execute_module", lambda module_args, **unused: slices.append(module_args) or outcomes[len(slices) - 1])
    assert action.run()["status"] == {"state": "built"}
    assert lines == [
        "flash-attn-1.0.9-62af: preparing, 4 at once, 10 s",
        "flash-attn-1.0.9-62af: step 1 of 9, 4 at once, 20 s",
        "flash-attn-1.0.9-62af: step 1 of 9, 2 at once, 40 s",
    ]
    assert [one.get("resume") for one in slices] == [None, *({"name": "x", "waited_seconds": seconds} for seconds in (10, 20, 30, 40))]
