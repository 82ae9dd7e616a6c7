# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The ranks of an engine over Ray: real actors of a real cluster, placed as vLLM 0.8.5 places them, that hold no model.

Ray itself is in the image engine_simulated_ray alone.
"""

from __future__ import annotations

import os
import threading
import time

from . import logs

PLACED_SECONDS = 60
ALIVE_SECONDS = 1
TOGETHER = []  # the actors, which Ray ends when nobody refers to them


def start(tensor: int, stages: int) -> None:
    """Start an actor for each rank on the cluster that RAY_ADDRESS names: executor/ray_utils.py initialize_ray_cluster, ray_distributed_executor.py.

    Raises RuntimeError (no Ray, or a stage that is spread over hosts) and ValueError (too few cards in the cluster). An actor that dies takes the
    process with it, as the real engine dies of the call that it is in.
    """
    try:
        import ray
        from ray.util.placement_group import placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
    except ImportError:
        raise RuntimeError("Failed to import Ray, please install Ray with `pip install ray`.") from None
    ray.init(address=os.environ.get("RAY_ADDRESS"), log_to_driver=False)
    ranks, found = tensor * stages, int(ray.cluster_resources().get("GPU", 0))
    if ranks > found:
        raise ValueError(f"The number of required GPUs exceeds the total number of available GPUs in the placement group: {ranks} > {found}.")
    group = placement_group([{"GPU": 1.0}] * ranks, strategy="PACK")
    try:
        ray.get(group.ready(), timeout=PLACED_SECONDS)
    except ray.exceptions.GetTimeoutError:
        raise ValueError(f"Cannot provide a placement group of {ranks} GPUs within {PLACED_SECONDS} seconds.") from None

    @ray.remote(num_gpus=1, num_cpus=0)
    class RayWorkerWrapper:
        def address(self):
            return os.environ.get("VLLM_HOST_IP", "")

    for bundle in range(ranks):
        placed = PlacementGroupSchedulingStrategy(placement_group=group, placement_group_bundle_index=bundle)
        TOGETHER.append(RayWorkerWrapper.options(scheduling_strategy=placed).remote())
    addresses = ray.get([actor.address.remote() for actor in TOGETHER])
    own = os.environ.get("VLLM_HOST_IP", "")
    addresses.sort(key=lambda address: (address != own, addresses.count(address), address))
    for stage in range(stages):
        hosts = sorted(set(addresses[stage * tensor : (stage + 1) * tensor]))
        if len(hosts) > 1:
            raise RuntimeError(f"pipeline stage {stage} is spread over {', '.join(hosts)}")
        logs.vllm("INFO", "ray_distributed_executor.py:301", f"pipeline stage {stage}: {tensor} ranks on {hosts[0]}")
    threading.Thread(target=_watch, args=(ray,), daemon=True).start()


def _watch(ray) -> None:
    """Every step of the real engine calls all ranks, and fails with the first that is gone."""
    while True:
        time.sleep(ALIVE_SECONDS)
        try:
            ray.get([actor.address.remote() for actor in TOGETHER], timeout=60)
        except Exception as error:  # pylint: disable=broad-except
            logs.vllm("ERROR", "engine.py:160", f"{type(error).__name__}: {str(error).splitlines()[0]}")
            os._exit(1)
