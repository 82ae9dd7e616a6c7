#!/usr/bin/python
# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: reachability_info
short_description: Whether web servers answer this host
version_added: "0.1.0"
description:
  - Asks every address once, all at the same time, and says what came back. Nothing is downloaded beyond the head of the answer.
  - Does not fail because of an answer or for want of one.
  - Proxies are those of the host's environment.
author:
  - The gpuhosts.inference authors (@gpuhosts)
options:
  urls:
    description: The addresses.
    type: list
    elements: str
    required: true
  timeout:
    description: Seconds to wait for each answer.
    type: int
    default: 10
attributes:
  check_mode:
    description: Can run in check mode and return what it would outside of it.
    support: full
  diff_mode:
    description: Returns what it would change.
    support: none
  platform:
    description: The systems it runs on.
    platforms: posix
    support: full
"""

EXAMPLES = r"""
- name: Ask the mirrors
  gpuhosts.inference.reachability_info:
    urls:
      - https://developer.download.nvidia.com/compute/cuda/repos/ubuntu2404/x86_64/InRelease
      - https://huggingface.co
  register: mirrors
"""

RETURN = r"""
answers:
  description: For each of O(urls), the HTTP C(status) after redirects (null without an answer) and the C(error) (null with one).
  returned: always
  type: dict
  sample: {"https://huggingface.co": {status: 200, error: null}, "http://mirror.invalid/": {status: null, error: Name or service not known}}
"""

import concurrent.futures
from urllib.error import HTTPError

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url

# Enough for every address of a host at once.
WORKERS = 16


def ask(url, timeout):
    """What came back from one address."""
    try:
        with open_url(url, timeout=timeout, http_agent="gpuhosts.inference") as answer:
            return {"status": answer.code, "error": None}
    except HTTPError as error:
        return {"status": error.code, "error": None}
    except Exception as error:  # open_url raises from several libraries: name resolution, time-outs, TLS, proxies.
        why = getattr(error, "reason", None) or error
        return {"status": None, "error": getattr(why, "strerror", None) or str(why) or type(why).__name__}


def main():
    module = AnsibleModule(
        argument_spec={
            "urls": {"type": "list", "elements": "str", "required": True},
            "timeout": {"type": "int", "default": 10},
        },
        supports_check_mode=True,
    )
    urls, timeout = module.params["urls"], module.params["timeout"]
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        answers = list(pool.map(lambda url: ask(url, timeout), urls))
    module.exit_json(changed=False, answers=dict(zip(urls, answers)))


if __name__ == "__main__":
    main()
