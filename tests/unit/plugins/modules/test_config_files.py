"""Several small files in one execution."""

import stat

from ansible_collections.gpuhosts.inference.plugins.modules import config_files


def test_written_removed_and_then_nothing(run_module, tmp_path):
    (tmp_path / "old").write_text("old\n")
    arguments = {"files": {str(tmp_path / "new/a"): "one\n", str(tmp_path / "b"): "two\n"}, "absent": [str(tmp_path / "old"), str(tmp_path / "never")]}
    expected = {"written": list(arguments["files"]), "removed": [str(tmp_path / "old")]}
    said = run_module(config_files, check=True, **arguments)
    assert {key: said[key] for key in expected} == expected
    assert (tmp_path / "old").exists() and not (tmp_path / "b").exists()
    done = run_module(config_files, **arguments)
    assert {key: done[key] for key in expected} == expected
    assert done["diff"] == said["diff"]
    assert {"before_header": str(tmp_path / "b"), "after_header": str(tmp_path / "b"), "before": "", "after": "two\n"} in done["diff"]
    assert (tmp_path / "new/a").read_text() == "one\n"
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o644
    assert run_module(config_files, **arguments)["changed"] is False


def test_drift_in_content_and_in_mode(run_module, tmp_path):
    arguments = {"files": {str(tmp_path / "a"): "one\n"}, "mode": "0600"}
    run_module(config_files, **arguments)
    (tmp_path / "a").chmod(0o644)
    assert run_module(config_files, **arguments)["changed"] is True
    (tmp_path / "a").write_text("other\n")
    assert run_module(config_files, **arguments)["changed"] is True
    assert (tmp_path / "a").read_text() == "one\n"


def test_a_path_that_cannot_be_written(run_module, tmp_path):
    (tmp_path / "file").write_text("")
    result = run_module(config_files, files={str(tmp_path / "file/below"): "x"})
    assert result["msg"] == f"{tmp_path}/file/below cannot be written: Not a directory."
