# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every constant of the memory model that was fitted, in bytes where the comment has no other unit, with the cases of tests/data that it rests on.

Sizes in the comments are GiB. Everything else in the model is read in the engine's code.
"""

from __future__ import annotations

from .hardware import GIB

FITTED = {
    # Kernels, cuBLAS handles and the like in the engine's own process; measured minus what torch holds. T4 0.05 (t008 t025 t026 t027 t028
    # t040), A10 0.05 (a004 a005), L40S 0.08 (a009), RTX 4060 0.03 (i001).
    "non_torch": int(0.05 * GIB),
    # The same on a V100, 0.07 to 0.09 (t004 t032 t034).
    "non_torch_volta": int(0.08 * GIB),
    # The same in 0.6.5 and 0.6.6: T4 0.11 (h007), A100 0.10 (h015) and 0.26 (a015).
    "non_torch_066": int(0.10 * GIB),
    # The same on an H100, 0.07 to 0.14 (v007 p002 p004 p008), and what engines from 0.12 on add to it: 0.25 in all (q001 q006 q008 q012).
    "non_torch_hopper": int(0.12 * GIB),
    "non_torch_late": int(0.12 * GIB),
    # The CUDA context, which engines before 0.6.5 and V1 up to 0.8 charge: in all RTX 3090 0.35 (i004 i005), H200 0.73 (h010), others 0.15 (h011)
    # and 0.47 (t011).
    "context": int(0.28 * GIB),
    # A captured CUDA graph of one decoder layer for one batch size: 160 to 240 KiB (t026 t040 a004 t008 a015).
    "graph_layer": 200 * 1024,
    # What a graph needs more where ranks exchange partial sums: 0.63 GiB for 35 graphs of 36 layers (t022 t023), 1.03 for 67 of 48 (v003).
    "graph_layer_tp": 340 * 1024,
    # NCCL's buffers and communicators over PCIe, whatever the number of ranks: 4 x RTX 2080 Ti 0.20 in all (t001 t022 t023 h001 h002).
    "nccl_pcie": int(0.15 * GIB),
    # One communicator over NVLink, for each doubling of the ranks: 8 ranks 0.88 (a011, first stage, which has one), 2.05 and 2.10 (a013, and a011's
    # second stage, which have two).
    "nccl_communicator": int(0.31 * GIB),
    # The same from 0.9 on, for all communicators: 8 ranks 1.9 (v005, by its KV cache), 4 ranks 1.9 (q003), 2 ranks 0.4 and 1.8 (p006 q010).
    "nccl_nvlink_late": int(0.67 * GIB),
    # The sampler of V1 from 0.12 on, bytes for each sequence and entry of the vocabulary: q001 q003 q006 q008 q010 q012.
    "sampler_late": 14.0,
}
