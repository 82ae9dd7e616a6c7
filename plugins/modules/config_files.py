#!/usr/bin/python
# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: config_files
short_description: Several small configuration files in one execution
version_added: "0.1.0"
description:
  - Gives files their content and removes others, all in one execution. Ten files with M(ansible.builtin.copy) are ten executions.
  - A file is replaced whole or not at all. It belongs to root, because the module runs as root.
author:
  - The gpuhosts.inference authors (@gpuhosts)
options:
  files:
    description: Content of each file, by its path. Missing directories are made.
    type: dict
    default: {}
  absent:
    description: Paths where no file shall be.
    type: list
    elements: path
    default: []
  mode:
    description: Permissions of the files.
    type: raw
    default: "0644"
attributes:
  check_mode:
    description: Can run in check mode and return what it would outside of it.
    support: full
  diff_mode:
    description: Returns what it would change.
    support: full
  platform:
    description: The systems it runs on.
    platforms: debian
    support: full
seealso:
  - module: ansible.builtin.copy
"""

EXAMPLES = r"""
- name: Path and linker path of the CUDA toolkit
  gpuhosts.inference.config_files:
    files:
      /etc/profile.d/cuda.sh: |
        export PATH=/usr/local/cuda-12.8/bin:$PATH
      /etc/ld.so.conf.d/cuda.conf: |
        /usr/local/cuda-12.8/lib64
    absent:
      - /etc/ld.so.conf.d/cuda-old.conf
"""

RETURN = r"""
written:
  description: The files that were changed or made.
  returned: always
  type: list
  elements: str
removed:
  description: The files that were removed.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpuhosts.inference.plugins.module_utils.config_files import ConfigFiles


def main():
    module = AnsibleModule(
        argument_spec={
            "files": {"type": "dict", "default": {}},
            "absent": {"type": "list", "elements": "path", "default": []},
            "mode": {"type": "raw", "default": "0644"},
        },
        supports_check_mode=True,
    )
    files = ConfigFiles(module)
    for path, content in module.params["files"].items():
        files.write(path, str(content), module.params["mode"])
    for path in module.params["absent"]:
        files.remove(path)
    module.exit_json(**files.result())


if __name__ == "__main__":
    main()
