# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the engine reads of a checkpoint: config.json and the size of its weights."""

from __future__ import annotations

import json
import pathlib


def read_config(model: str) -> dict:
    """The checkpoint's config.json. ValueError with vLLM's text when there is none (get_config in transformers_utils/config.py)."""
    try:
        return json.loads((pathlib.Path(model) / "config.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(
            f"Invalid repository ID or local directory specified: '{model}'.\n"
            "Please verify the following requirements:\n"
            "1. Provide a valid Hugging Face repository ID.\n"
            "2. Specify a local directory that contains a recognized configuration file.\n"
            "   - For Hugging Face models: ensure the presence of a 'config.json'.\n"
            "   - For Mistral models: ensure the presence of a 'params.json'.\n"
        ) from error


def weight_files(model: str) -> list[pathlib.Path]:
    """The checkpoint's safetensors files, in order. RuntimeError with vLLM's text when there are none (loader.py:350)."""
    files = sorted(pathlib.Path(model).glob("*.safetensors"))
    if not files:
        raise RuntimeError(f"Cannot find any model weights with `{model}`")
    return files
