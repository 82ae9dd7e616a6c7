"""Running a module's main() in this process, as Ansible would on a host."""

import json

import pytest

from ansible.module_utils.testing import patch_module_args


@pytest.fixture
def run_module(tmp_path, capsys):
    """Returns run(module, check=False, **arguments) -> the module's result."""
    remote = tmp_path / "ansible-tmp"
    remote.mkdir()

    def run(module, check=False, **arguments):
        arguments.update({"_ansible_check_mode": check, "_ansible_tmpdir": str(remote), "_ansible_remote_tmp": str(remote)})
        capsys.readouterr()
        with patch_module_args(arguments), pytest.raises(SystemExit):
            module.main()
        return json.loads(capsys.readouterr().out)

    return run
