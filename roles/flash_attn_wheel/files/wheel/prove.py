"""Proves a carried wheel in the image that is to use it: its checksum, its import beside torch, and on a card that it computes what it should.

Usage: prove.py DIRECTORY SHA256    the wheel that lies in DIRECTORY, beside its manifest.json
       prove.py DIRECTORY           what the image itself has installed, by the manifest.json in DIRECTORY

Writes DIRECTORY/proof.json, {"forward": {"64": largest difference, "128": ...}}, or {"forward": null, "not_run": why}, and prints it as a sentence.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile

import build
import start

HEAD_SIZES = (64, 128)
TOLERANCE = 1e-2  # fp16 has 11 bits, and the values here are below 4
BATCH, LENGTH, HEADS = 2, 256, 4


def reference(torch, query, key, value):
    """softmax(q k^T / sqrt(d)) v in fp32. Shapes: (batch, length, heads, head size)."""
    query, key, value = (part.float().transpose(1, 2) for part in (query, key, value))
    weights = torch.softmax(query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5, dim=-1)
    return (weights @ value).transpose(1, 2)


def flash_attention(torch):
    """attend(q, k, v) of whichever flash-attn is installed: 1.x wants the sequences of a batch one after the other."""
    import flash_attn.flash_attn_interface as interface

    if hasattr(interface, "flash_attn_func") and not hasattr(interface, "flash_attn_unpadded_func"):
        return interface.flash_attn_func

    def attend(query, key, value):
        batch, length, heads, size = query.shape
        starts = torch.arange(0, (batch + 1) * length, length, dtype=torch.int32, device=query.device)
        flat = [part.reshape(batch * length, heads, size) for part in (query, key, value)]
        return interface.flash_attn_unpadded_func(*flat, starts, starts, length, length, 0.0).reshape(batch, length, heads, size)

    return attend


def forward(torch, attend, device):
    """The largest difference to the reference for each head size, in fp16; build.Failed where one is above the tolerance."""
    found = {}
    for size in HEAD_SIZES:
        torch.manual_seed(size)
        parts = [torch.randn(BATCH, LENGTH, HEADS, size, device=device).half() for dummy in range(3)]
        difference = (attend(*parts).float() - reference(torch, *parts)).abs().max().item()
        if not difference <= TOLERANCE:  # NaN too
            raise build.Failed(
                f"The forward pass with head size {size} differs from the reference by {difference:.3g}, above {TOLERANCE}: do not use this wheel."
            )
        found[str(size)] = difference
    return found


def on_card(name):
    """(differences, None), or (None, why the forward pass was not run)."""
    import torch

    if name != "flash-attn":
        return None, f"no forward pass of {name} is known here"
    if not torch.cuda.is_available():
        return None, "PyTorch sees no card here"
    try:
        return forward(torch, flash_attention(torch), "cuda"), None
    except torch.cuda.OutOfMemoryError:
        return None, "the card has no memory left"


def main(directory, checksum=None):
    try:
        manifest = start.read(directory, "manifest.json")
        with tempfile.TemporaryDirectory() as installed:
            if checksum:
                build.install(start.carried(directory, checksum)[0], installed)
                sys.path.insert(0, installed)
            build.import_beside_torch(installed, manifest["imports"])
            differences, reason = on_card(manifest["wanted"]["name"])
    except build.Failed as error:
        sys.exit(str(error))
    proof = {"forward": differences, **({"not_run": reason} if reason else {})}
    with open(os.path.join(directory, "proof.json"), "w", encoding="utf-8") as file:
        json.dump(proof, file)
    told = ", ".join(f"{difference:.2g} with head size {size}" for size, difference in (differences or {}).items())
    print(f"imported beside torch; forward pass: {told or f'not run, for {reason}'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
