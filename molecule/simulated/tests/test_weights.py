"""Models on two hosts: one fetch from the hub for both, repaired by the piece, never half in place. What the mirror's log says was asked is counted."""

import json
import os
import re
import shlex
import subprocess

import lab_play
import pytest

LAB = os.environ["LAB_NAME"]
testinfra_hosts = [f"docker://{LAB}-gpu01"]
ROOT, REPO = "/home/llm/model", "gpuhosts-lab/tiny-qwen3"
LINK, STORE = f"{ROOT}/{REPO}", f"{ROOT}/.snapshots/{REPO}"
WEIGHTS = "model.safetensors"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def mirror():
    return lab_play.Machine(f"{LAB}-mirror")


@pytest.fixture
def bare(gpu01, gpu02):
    """Two hosts without the model; what the tests leave is made whole again."""
    for host in (gpu01, gpu02):
        host.machine.remove(LINK, STORE)
    yield gpu01, gpu02
    status, output = artifacts()
    assert status == 0, output


def artifacts(host=None, **variables):
    """Run playbooks/artifacts.yml; (exit status, output)."""
    return lab_play.play("playbooks/artifacts.yml", "--extra-vars", json.dumps(variables), host=host)


def asked(mirror, since=0):
    """Lines of the hub's log after the first `since`: requests for the contents of weights."""
    return [line for line in mirror.out("cat /var/log/nginx/hub.log").splitlines()[since:] if f"GET /{REPO}/resolve" in line and WEIGHTS in line]


def lines(mirror):
    return len(mirror.out("cat /var/log/nginx/hub.log").splitlines())


def whole(host):
    manifest = json.loads(host.machine.out(f"cat $(realpath {LINK}).json"))
    sums = "\n".join(f"{entry['sha256']}  {name}" for name, entry in manifest["files"].items())
    host.machine.run(f"cd {LINK}/ && sha256sum --check --quiet -", text=sums + "\n")
    return manifest["commit"]


def test_one_fetch_for_both_hosts_and_none_for_the_second_run(bare, mirror):
    before = lines(mirror)
    status, output = artifacts()
    assert status == 0, output
    bytes_sent = [int(line.split()[5]) for line in asked(mirror, before)]
    size = int(bare[0].machine.out(f"stat --dereference --format=%s {LINK}/{WEIGHTS}"))
    assert [sent for sent in bytes_sent if sent >= size] == [size], "the weights are sent once"
    hosts = {line.split()[1] for line in asked(mirror, before)}
    assert len(hosts) == 1, "only the seed asks the hub for weights"
    assert whole(bare[0]) == whole(bare[1])
    before = lines(mirror)
    status, output = artifacts()
    assert lines(mirror) == before, "the second run asks the hub nothing"
    assert {host: counts["changed"] for host, counts in lab_play.recap(output).items()} == {"gpu01": 0, "gpu02": 0}


def test_a_file_that_was_damaged_comes_from_the_other_host(gpu01, gpu02, mirror):
    commit, before = whole(gpu02), lines(mirror)
    gpu02.machine.run(f"printf damaged | dd of={STORE}/{commit}/{WEIGHTS} bs=1 seek=5000 conv=notrunc status=none")
    status, output = artifacts()
    assert status == 0, output
    assert whole(gpu02) == commit
    assert lines(mirror) == before, "the hub is not asked"
    assert not gpu02.machine.has(f"{STORE}/transfer")
    gpu02.machine.run("! systemctl list-units --plain --no-legend 'model-transfer-*' | grep .")


def test_a_file_that_the_disk_has_changed_is_found_when_asked(gpu01):
    commit = whole(gpu01)
    path = f"{STORE}/{commit}/{WEIGHTS}"
    gpu01.machine.run(f"touch --reference={path} /tmp/when && printf damaged | dd of={path} bs=1 seek=5000 conv=notrunc status=none")
    gpu01.machine.run(f"touch --reference=/tmp/when {path}")
    status, output = artifacts(model_weights_rehash=True)
    assert status == 0, output
    assert whole(gpu01) == commit


def test_a_revision_that_does_not_exist(gpu01, gpu02):
    instances = [{"name": "coder", "model": REPO, "revision": "v9", "port": 8888}]
    status, output = artifacts(vllm_instances=instances)
    assert status != 0
    assert f"{REPO} has no revision v9 on http://mirror:8080: name a branch, tag or commit that it has." in output
    assert f"gpu01 has not got {REPO}, so that gpu02 cannot get it from there" in output
    assert whole(gpu01) == whole(gpu02), "what is in place stays"


def test_a_checkpoint_that_is_not_quantised(bare):
    instances = [{"name": "coder", "model": REPO, "port": 8888, "options": {"quantization": "awq"}}]
    status, output = artifacts(vllm_instances=instances)
    assert status != 0
    assert "the checkpoint is not quantised, and the engine would end with KeyError: qweight." in output
    assert not bare[0].machine.has(STORE), "nothing was fetched"


def test_weights_that_lie_at_the_articles_path_are_taken_over(gpu01, gpu02, mirror):
    commit = whole(gpu01)
    for host in (gpu01, gpu02):
        host.machine.run(f"rm {LINK} && cp -r {STORE}/{commit} {LINK} && rm -r {STORE}")
    before = lines(mirror)
    status, output = artifacts()
    assert status == 0, output
    assert not [line for line in asked(mirror, before) if "hf_hub" in line], "only the list of tensors is read from the hub"
    assert whole(gpu01) == whole(gpu02) == commit
    assert gpu01.machine.has(f"{STORE}/replaced/{WEIGHTS}")


def test_a_seed_that_dies(bare):
    """The seed's link goes down as soon as it seeds: the receiver says so, keeps what is in place, and the next run goes on."""
    gpu01, gpu02 = bare
    status, output = artifacts(host="gpu01")
    assert status == 0, output
    gpu01.machine.run("systemd-run --quiet --unit=assassin bash -c 'until pkill --exact aria2c; do sleep 0.05; done'")
    status, output = artifacts(model_weights_stall_seconds=5, model_weights_rate_limit="10K")
    gpu01.machine.run("systemctl stop assassin", check=False)
    assert status != 0
    assert f"gpu02 has not got all of {REPO}: for 5 s no host had a piece for it." in output
    assert not gpu02.machine.has(LINK)
    status, output = artifacts()
    assert status == 0, output
    assert whole(gpu01) == whole(gpu02)


def test_a_full_disk(bare):
    gpu01, dummy = bare
    gpu01.machine.run(f"mkdir -p {STORE} && mount -t tmpfs -o size=100k tmpfs {STORE}")
    try:
        status, output = artifacts(host="gpu01")
    finally:
        gpu01.machine.run(f"umount {STORE}")
    assert status != 0
    assert f"{REPO} lacks 0.0 GiB" in output and "Make room, or put the models elsewhere (model_weights_root). Nothing was fetched." in output
    assert not gpu01.machine.has(LINK)


def test_a_tree_of_files_instead_of_a_hub(bare):
    """A directory on the seed, such as a disk that somebody carried there, and the same over HTTP."""
    seed, dummy = bare
    tree = f"/srv/tree/{REPO}"
    status, output = artifacts(host="gpu01")
    assert status == 0, output
    seed.machine.run(
        f"mkdir -p $(dirname {tree}) && cp -rL {LINK} {tree} && cd {tree} && find . -type f -print0 | xargs -0 sha256sum > /tmp/SUMS && mv /tmp/SUMS SHA256SUMS"
    )
    seed.machine.remove(LINK, STORE)
    status, output = artifacts(model_weights_endpoint="tree+file:///srv/tree")
    assert status == 0, output
    commit = whole(bare[0])
    assert whole(bare[1]) == commit
    seed.machine.remove(LINK, STORE)
    bare[1].machine.remove(LINK, STORE)
    seed.machine.run("systemd-run --quiet --unit=tree python3 -m http.server --directory /srv/tree 8090")
    status, output = artifacts(model_weights_endpoint="tree+http://gpu01:8090")
    seed.machine.run("systemctl stop tree")
    assert status == 0, output
    assert whole(bare[0]) == whole(bare[1]) == commit, "the contents make the commit"


def test_a_piece_that_is_damaged_on_its_way(bare):
    """The seed's file is other than its torrent says, for as long as a piece is sent: nothing of it is kept, and the right piece is asked for again."""
    gpu01, gpu02 = bare
    status, output = artifacts(host="gpu01")
    assert status == 0, output
    weights = f"{STORE}/{whole(gpu01)}/{WEIGHTS}"
    damage = (
        f"until [ -e {STORE}/transfer/allowed ]; do sleep 0.05; done; cp --preserve {weights} /root/right; "
        f"printf damaged | dd of={weights} bs=1 seek=5000 conv=notrunc status=none; sleep 8; "
        f"cat /root/right > {weights}; touch --reference=/root/right {weights}"
    )
    gpu01.machine.run(f"systemd-run --quiet --unit=damage bash -c {shlex.quote(damage)}")
    status, output = artifacts()
    gpu01.machine.run("systemctl stop damage", check=False)
    assert status == 0, output
    assert "Checksum error" in gpu02.machine.out("journalctl --unit='model-transfer-*' --output=cat --since=-120s")
    assert whole(gpu01) == whole(gpu02)


@pytest.fixture(params=["60k"])
def slow_hub(request, mirror):
    """The hub sends 60 KB/s, or another rate: the weights take five seconds."""
    mirror.run(f"sed -i 's/^    etag off;/    limit_rate {request.param}; etag off;/' /srv/hub/hub.conf && systemctl restart nginx")
    yield mirror
    mirror.run(f"sed -i 's/limit_rate {request.param}; //' /srv/hub/hub.conf && systemctl restart nginx")


def begin(host=None, **variables):
    """playbooks/artifacts.yml in the background."""
    words, settings = lab_play.command("playbooks/artifacts.yml", "--extra-vars", json.dumps(variables), host=host)
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **settings)


@pytest.mark.parametrize("slow_hub", ["15k"], indirect=True)
def test_a_download_shows_how_far_it_has_come(bare, slow_hub):
    status, output = artifacts(host="gpu01")
    assert status == 0, output
    assert re.search(r"gpu01 fetch-gpuhosts-lab-tiny-qwen3: 0\.00 of 0\.00 GiB, [1-9][0-9]%", output), output


def test_a_connection_that_is_cut(bare, slow_hub):
    run = begin()
    bare[0].until(f"find {STORE} -name '*.incomplete' 2>/dev/null | grep -q .")
    slow_hub.run("sleep 2; systemctl kill --signal=KILL nginx; systemctl restart nginx")
    output = " ".join(run.communicate(timeout=300)[0].split())
    assert run.returncode != 0
    assert f"Fetching {REPO} from http://mirror:8080 failed" in output
    assert "run again, it resumes where it stopped." in output
    assert not bare[0].machine.has(LINK), "nothing half-written is in place"
    before = lines(slow_hub)
    status, output = artifacts()
    assert status == 0, output
    assert not [line for line in slow_hub.out("cat /var/log/nginx/hub.log").splitlines()[before:] if "GET" in line and "README.md" in line]
    assert whole(bare[0]) == whole(bare[1])


def test_a_disk_that_fills_up_while_it_is_fetched(bare, slow_hub):
    """Another program takes what room there was: what came is kept, nothing is in place, and a run with room goes on."""
    gpu01, dummy = bare
    gpu01.machine.run(f"mkdir -p {STORE} && mount -t tmpfs -o size=2m tmpfs {STORE}")
    try:
        run = begin(host="gpu01")
        gpu01.until(f"find {STORE} -name '*.incomplete' 2>/dev/null | grep -q .")
        gpu01.machine.run(f"cat /dev/zero > {STORE}/other", check=False)
        output = " ".join(run.communicate(timeout=300)[0].split())
        assert run.returncode != 0
        assert f"Fetching {REPO} from http://mirror:8080 failed" in output
        assert "No space left on device" in output
        assert not gpu01.machine.has(LINK), "nothing half-written is in place"
        gpu01.machine.remove(f"{STORE}/other")
        status, output = artifacts(host="gpu01")
        assert status == 0, output
        whole(gpu01)
    finally:
        gpu01.machine.remove(LINK)
        gpu01.machine.run(f"umount {STORE}")


def test_two_runs_at_once(bare, slow_hub):
    before = lines(slow_hub)
    runs = [begin(), begin()]
    outputs = [run.communicate(timeout=300)[0] for run in runs]
    size = int(bare[0].machine.out(f"stat --dereference --format=%s {LINK}/{WEIGHTS}"))
    assert [run.returncode for run in runs] == [0, 0], outputs
    assert [line.split()[5] for line in asked(slow_hub, before)].count(str(size)) == 1, "the weights are sent once"
    assert whole(bare[0]) == whole(bare[1])


def test_the_sites_registry_has_the_image_by_its_digest_and_asks_the_public_one_once(gpu01, gpu02, mirror):
    """The mirror's registry is the public one here; gpu01 holds the site's."""
    image = gpu02.machine.out("docker images --digests --format '{{.Repository}}@{{.Digest}}' vllm/vllm-openai | head -1")
    extra = {"image_registry_images": [image], "image_registry_upstream": "mirror:5000", "image_registry_upstream_tls": False, "image_registry_port": 5001}

    def bring_up():
        inventories = ("inventories/lab", "molecule/simulated/registry/hosts.yml")
        return lab_play.play("playbooks/image_registry.yml", "--extra-vars", json.dumps(extra), inventories=inventories)

    status, output = bring_up()
    assert status == 0, output
    blobs = "journalctl --unit docker-registry --output cat | grep -c 'GET /v2/vllm/vllm-openai/blobs' || true"
    asked_before = mirror.out(blobs)
    status, output = bring_up()
    assert status == 0, output
    assert "changed=0" in output
    digest = image.partition("@")[2]
    accept = "Accept: application/vnd.docker.distribution.manifest.v2+json"
    assert digest in gpu02.machine.out(f"curl --silent --fail --head --header '{accept}' http://gpu01:5001/v2/vllm/vllm-openai/manifests/{digest}")
    assert mirror.out(blobs) == asked_before, "the second run asks the public registry for nothing"

    # A host that lacks the image pulls it from there, and the public registry is not asked.
    instances = gpu02.machine.out("docker images --quiet vllm/vllm-openai").split()
    gpu02.machine.run("systemctl stop vllm-coder && docker rmi --force " + " ".join(sorted(set(instances))))
    status, output = lab_play.play("playbooks/site.yml", "--extra-vars", json.dumps({"docker_engine_registry_mirrors": ["http://gpu01:5001"]}), host="gpu02")
    assert status == 0, output
    assert image in gpu02.machine.out("docker images --digests --format '{{.Repository}}@{{.Digest}}' vllm/vllm-openai")
    assert mirror.out(blobs) == asked_before, "the public registry is asked once"
    assert int(gpu01.machine.out("journalctl --unit docker-registry --output cat | grep -c 'GET /v2/vllm/vllm-openai/blobs'")) > 0
