"""Configurations as HAProxy itself reads them; and what makes a gateway differ, which is all that a converged one is asked."""

import haproxy
import lab_gateway
import pytest
from lab_gateway import CODER, host, value

LONGER = CODER | {"options": {"max_model_len": 16384, "max_num_seqs": 64}}
FLEETS = {
    "one": {"gpu01": host(CODER)},
    "two contexts": {"gpu01": host(CODER), "gpu02": host(LONGER)},
    "odd names and keys": {
        "gpu01": host(CODER | {"served_model_name": "Qwen/Qwen3:8B+x@1"}, {"name": "b", "model": "other/model", "port": 9}, vllm_api_key="x y")
    },
}


@pytest.mark.parametrize("fleet", FLEETS)
@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"gateway_affinity_bytes": 0, "gateway_bytes_per_token_most": 0},
        {"gateway_listen_address": "::", "gateway_port": "8443", "gateway_request_bytes": "8388608", "gateway_paths": ["/tokenize"]},
    ],
)
def test_haproxy_takes_it_without_a_warning(tmp_path, fleet, variables):
    status, said = haproxy.check(lab_gateway.write(tmp_path, FLEETS[fleet], **variables))
    assert status == 0 and "WARNING" not in said, said


def test_a_request_goes_to_the_tier_that_has_room_for_it():
    text = value("haproxy.cfg.j2", FLEETS["two contexts"])
    short, longer = [line.split() for line in text.splitlines() if line.strip().startswith("use_backend")]
    assert short[1].endswith("-8192") and " ".join(short[2:]) == (
        f"if {{ var(txn.model) -m str coder }} {{ var(txn.usual) -m int le 8192 }} {{ nbsrv({short[1]}) gt 0 }}"
    )
    assert longer[1].endswith("-16384") and " ".join(longer[2:]) == "if { var(txn.model) -m str coder }"
    assert "has 16384 tokens" in text and "has 8192 tokens" not in text


def converged(**variables):
    return {"packages": {"haproxy": "2.6"}, "gateway": {"files": value("__gateway_checksums", **variables), "units": {"haproxy.service": True}}}


def test_a_converged_gateway_does_not_differ():
    facts = converged()
    assert value("__gateway_differs", facts=facts) is False
    assert value("__gateway_differs", facts=facts | {"packages": {}}) is True
    assert value("__gateway_differs", facts=facts, gateway_port=8443) is True


SHARED = {"gateway_shared_address": "192.0.2.10/24", "gateway_shared_interface": "eth0"}


def test_a_shared_address_is_kept_by_keepalived_beside_it():
    text = value("keepalived.conf.j2", gateway_servers=["gw00", "gw01"], **SHARED)
    assert "192.0.2.10/24" in text and "interface eth0" in text and "priority 199" in text
    facts = converged()
    assert value("__gateway_differs", facts=facts, **SHARED) is True
    assert value("__gateway_missing", facts=facts, **SHARED) == ["keepalived"]
    facts = converged(**SHARED)
    facts["packages"]["keepalived"], facts["gateway"]["units"]["keepalived.service"] = "2.2", True
    assert value("__gateway_differs", facts=facts, **SHARED) is False
    # HAProxy goes on as it is, whatever becomes of the address.
    other = SHARED | {"gateway_shared_address": "192.0.2.11/24"}
    assert (value("__gateway_restarted", facts=facts, **other), value("__gateway_reloaded", facts=facts, **other)) == (False, False)
    assert value("__gateway_differs", facts=facts) is True
    assert value("__gateway_shared_before", facts=facts) is True
    facts["gateway"]["units"]["keepalived.service"] = False
    assert value("__gateway_differs", facts=facts, **SHARED) is True


def test_what_a_change_costs_a_running_gateway():
    facts, fewer = converged(), {"gateway_clients": lab_gateway.CLIENTS[:1]}
    assert (value("__gateway_restarted", facts=facts, **fewer), value("__gateway_reloaded", facts=facts, **fewer)) == (False, False)
    assert (value("__gateway_restarted", facts=facts, gateway_port=8443), value("__gateway_reloaded", facts=facts, gateway_port=8443)) == (False, True)
    stopped = facts | {"gateway": facts["gateway"] | {"units": {"haproxy.service": False}}}
    assert value("__gateway_restarted", facts=stopped) is True


def test_in_check_mode_a_bare_fleet_is_not_refused():
    bare = {"gpu01": {"vllm_instances": [CODER]}}
    assert value("__gateway_plannable", bare, ansible_check_mode=True) is False
    assert value("__gateway_plannable", bare) is True
    assert value("__gateway_plan.problems", bare)
