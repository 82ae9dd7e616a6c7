# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What NCCL takes of a card where a layer is cut over ranks: outside torch, and charged to the budget.

Over PCIe its buffers lie in the host's RAM, and little is left on the card. Over NVLink they lie on the cards. Engines before 0.9 have NCCL 2.21
(torch 2.5 and 2.6), which makes all of them at once; file names are those of nccl 2.21.5, src/transport, and of vllm 0.8.5, distributed.
"""

from __future__ import annotations

import math

from .fitted import FITTED
from .settings import Settings

MIB = 1024**2

# nvls.cc ncclNvlsSetup: two buffers of 1 MiB with 2 MiB for their flags, on each of 24 channels for each rank, in steps of what the driver
# recommends for multicast. From compute capability 9.0 on, and with more than two ranks.
NVLS_RANK = 24 * 2 * 3 * MIB
NVLS_STEP = 512 * MIB
# p2p.cc p2pRecvSetup and p2pSendSetup, in steps of 2 MiB: a receiver's buffers of all protocols, and the sender's, who keeps the largest itself
# where cards of compute capability 8.0 read from each other.
CHANNELS = 32
RECEIVER, SENDER = 10 * MIB, 2 * MIB
RECEIVER_READ, SENDER_READ = 6 * MIB, 6 * MIB


def nccl(settings: Settings, sm: int, last: bool = True, root: bool = True) -> int:
    """Bytes on one rank. last: it is in the last pipeline stage. root: it is the first of its stage, which in V0 gets the logits of the others."""
    ranks = settings.tensor_parallel_size
    if ranks == 1:
        return 0
    if not settings.nvlink or sm < 80:
        return FITTED["nccl_pcie"]
    if settings.release >= (0, 9):
        return int(FITTED["nccl_nvlink_late"] * math.log2(ranks))
    # The last stage gathers logits by torch's own communicator (parallel_state.py GroupCoordinator.gather), beside the one of pynccl.py.
    size = (int(FITTED["nccl_communicator"] * math.log2(ranks)) + _multicast(ranks, sm)) * (2 if last else 1)
    if last and settings.core == "V0":
        receiver, sender = (RECEIVER_READ, SENDER_READ) if sm == 80 else (RECEIVER, SENDER)
        size += CHANNELS * ((ranks - 1) * receiver if root else sender)
    return size


def _multicast(ranks: int, sm: int) -> int:
    """NVLS's buffers of one communicator."""
    return -(-ranks * NVLS_RANK // NVLS_STEP) * NVLS_STEP if sm >= 90 and ranks > 2 else 0
