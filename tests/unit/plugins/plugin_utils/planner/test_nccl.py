from __future__ import annotations

import pytest

from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.nccl import nccl
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.settings import Settings

GIB = 1024**3


def settings(ranks, **more):
    known = {"release": (0, 8, 5), "core": "V0", "attention": "FLASH_ATTN", "dtype": "float16", "activation_bytes": 2, "nvlink": True}
    return Settings(**{**known, "max_model_len": 1, "max_num_batched_tokens": 1, "max_num_seqs": 1, "tensor_parallel_size": ranks, **more})


def test_one_rank_talks_to_nobody():
    assert nccl(settings(1), 90) == 0


@pytest.mark.parametrize(("changes", "sm"), [({"nvlink": False}, 90), ({}, 75)])
def test_over_pcie_the_buffers_lie_in_ram(changes, sm):
    assert nccl(settings(2, **changes), sm) == nccl(settings(8, **changes), sm) == int(0.15 * GIB)


@pytest.mark.parametrize(
    ("sm", "last", "root", "logged"),
    [
        # a011: 0.93 and 1.07 on the first stage, 2.15 on the second rank of the last; its 5302 blocks leave 3.2 on that stage's first rank.
        (80, False, True, 0.95),
        (80, True, False, 2.10),
        (80, True, True, 3.19),
        # vllm issue 13074: 2.53 and 2.57 on the first stage. h005 and h019: 7.16 and 7.33.
        (90, False, True, 2.43),
        (90, True, True, 7.12),
    ],
)
def test_eight_ranks_over_nvlink(sm, last, root, logged):
    """The logs, less what lies outside torch without NCCL."""
    assert nccl(settings(8), sm, last, root) / GIB == pytest.approx(logged, abs=0.12)


def test_two_ranks_do_not_multicast():
    assert nccl(settings(2), 90, last=False) == nccl(settings(2), 80, last=False)
    assert nccl(settings(4), 90, last=False) > nccl(settings(4), 80, last=False)


def test_v1_gathers_on_every_rank_alike():
    v1 = settings(8, core="V1")
    assert nccl(v1, 90, root=True) == nccl(v1, 90, root=False) < nccl(settings(8), 90, root=False)


def test_later_releases_make_less_of_it_at_once():
    assert nccl(settings(8, core="V1")._replace(release=(0, 10, 0)), 90) == int(3 * int(0.67 * GIB)) < nccl(settings(8, core="V1"), 90)
