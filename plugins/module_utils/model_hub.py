# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a hub says of a model before anything large is fetched.

An endpoint is the address of a Hugging Face hub or of a mirror of it; C(modelscope+https://www.modelscope.cn), ModelScope or what answers like it; or
C(tree+https://files.example/models) and C(tree+file:///mnt/models), a tree of files in which C(REPO_ID/SHA256SUMS) lists those of a model.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
import time
from urllib.error import HTTPError
from urllib.parse import quote, urljoin, urlsplit

from ansible.module_utils.urls import open_url

# The longest config.json of a public model has a few hundred kilobytes; anything larger is something else.
MAXIMUM_BYTES = 4 * 1024 * 1024
# Lists of files and of tensors are longer: 8 MB for the largest models.
MAXIMUM_LIST_BYTES = 64 * 1024 * 1024
INDEX, WEIGHTS = "model.safetensors.index.json", "model.safetensors"
# A hub that throttles is asked again after as long as it says, or these seconds.
PAUSES = (5, 15, 45)
LONGEST_PAUSE = 120
# What lists the files of a model in a tree, and a line of it.
SUMS = "SHA256SUMS"
SUM = re.compile(r"(?P<sha256>[0-9a-f]{64}) [ *](?:\./)?(?P<name>.+)$")
COMMIT = re.compile(r"[0-9a-f]{40}$")
REDIRECTS = (301, 302, 303, 307, 308)
MAXIMUM_REDIRECTS = 5


class HubError(Exception):
    """The hub has not given the file; the text says why and what to do. C(silent): it gave no answer at all, and need not be asked again."""

    def __init__(self, text, silent=False):
        super().__init__(text)
        self.silent = silent


class _HuggingFace:
    """https://huggingface.co/docs/hub/api. A revision may be a name with slashes, such as C(refs/pr/1)."""

    def __init__(self, address):
        self.address = address

    def url(self, manifest, name):
        """Where a file of a manifest lies. Of the manifest, repo_id and revision are enough; where it has a commit, that is asked for."""
        revision = manifest.get("commit") or manifest["revision"]
        return "{}/{}/resolve/{}/{}".format(self.address, quote(manifest["repo_id"], safe="/"), quote(revision, safe=""), quote(name))

    def listed(self, question):
        """(commit, {name: {size, sha256 or blob_id}}). Raises HubError."""
        url = "{}/api/models/{}/revision/{}?blobs=true".format(self.address, quote(question.repo_id, safe="/"), quote(question.revision, safe=""))
        answer = _object(url, question)
        with _Understood(url):
            return answer["sha"], {entry["rfilename"]: self._file(entry) for entry in answer["siblings"]}

    @staticmethod
    def _file(entry):
        lfs = entry.get("lfs") or {}
        identity = {"sha256": lfs["sha256"]} if lfs.get("sha256") else {"blob_id": entry["blobId"]}
        return dict(identity, size=int(entry["size"]))


class _ByContents:
    """A hub that tells every file's sha256 and no commit: the contents make it."""

    def __init__(self, address):
        self.address = address

    def listed(self, question):
        """(commit, {name: {size, sha256}}). A revision that is a commit pins the contents. Raises HubError."""
        files = self.files(question)
        lines = "".join("{} {}\n".format(entry["sha256"], name) for name, entry in sorted(files.items()))
        commit = hashlib.sha1(lines.encode("utf-8")).hexdigest()
        if COMMIT.match(question.revision) and commit != question.revision:
            raise HubError(
                f"{question.endpoint} has commit {commit} of {question.repo_id}, not {question.revision}: its files are not those that were pinned. Find "
                "out what changed them, and name that commit or none."
            )
        return commit, files


class _ModelScope(_ByContents):
    """What the client of https://pypi.org/project/modelscope/1.15.0 asks (hub/api.py, hub/file_download.py). Its first branch is C(master)."""

    def url(self, manifest, name):
        """See _HuggingFace."""
        return "{}?Revision={}&FilePath={}".format(self._where(manifest["repo_id"]), self._branch(manifest["revision"]), quote(name, safe=""))

    def files(self, question):
        """{name: {size, sha256}}. Raises HubError."""
        url = "{}/files?Revision={}&Recursive=True".format(self._where(question.repo_id), self._branch(question.revision))
        answer = _object(url, question)
        with _Understood(url):
            found = [entry for entry in answer["Data"]["Files"] if entry.get("Type") != "tree"]
            return {entry["Path"]: {"size": int(entry["Size"]), "sha256": entry["Sha256"].lower()} for entry in found}

    def _where(self, repo_id):
        return "{}/api/v1/models/{}/repo".format(self.address, quote(repo_id, safe="/"))

    @staticmethod
    def _branch(revision):
        return "master" if revision == "main" or COMMIT.match(revision) else quote(revision, safe="")


class _Tree(_ByContents):
    """Files below REPO_ID, and SHA256SUMS beside them, as sha256sum writes it. There is one revision."""

    def url(self, manifest, name):
        """See _HuggingFace."""
        return "{}/{}/{}".format(self.address, quote(manifest["repo_id"], safe="/"), quote(name))

    def files(self, question):
        """{name: {size, sha256}}. Raises HubError."""
        if question.revision != "main" and not COMMIT.match(question.revision):
            raise HubError(f"{question.endpoint} is a tree of files, which has no revision {question.revision}: leave revision out, or name a commit.")
        url = self.url({"repo_id": question.repo_id}, SUMS)
        text = _asked(question, lambda: _open(url, question.token, question.timeout).read(question.maximum)).decode("utf-8", "replace")
        sums = [SUM.match(line) for line in text.splitlines() if line.strip()]
        if not sums or None in sums:
            raise HubError(f"{url} is not a list as sha256sum writes it: write it anew, inside of the model's directory.")
        return {match["name"]: {"size": self._size(question, match["name"]), "sha256": match["sha256"]} for match in sums}

    def _size(self, question, name):
        url = self.url({"repo_id": question.repo_id}, name)
        length = _asked(question, lambda: _open(url, question.token, question.timeout, "HEAD")).headers.get("Content-Length")
        if length is None:
            raise HubError(f"{url} is served without its length (Content-Length), so that nobody knows whether it fits on the disk: use another server.")
        return int(length)


class _Understood:
    """Turns what an answer lacks into a HubError."""

    def __init__(self, url):
        self._url = url

    def __enter__(self):
        return self

    def __exit__(self, kind, error, dummy):
        if isinstance(error, (KeyError, TypeError, ValueError, AttributeError)):
            raise HubError(f"What {self._url} answers has no commit, or files without sizes and hashes: it is not a hub that knows its files; name another.")


def _source(endpoint):
    kind, plus, address = endpoint.rstrip("/").partition("+")
    sources = {"modelscope": _ModelScope, "tree": _Tree}
    return sources[kind](address) if plus and kind in sources else _HuggingFace(endpoint.rstrip("/"))


def plain_address(endpoint):
    """An endpoint's address without the word that says what it is."""
    return _source(endpoint).address


def fetch_config(endpoint, manifest, token="", timeout=10):
    """A model's config.json as a dict; of the manifest repo_id and revision are enough. Raises HubError. Proxies are those of the environment."""
    question = _Question(endpoint, manifest["repo_id"], manifest.get("commit") or manifest["revision"], token, timeout)
    return _object(_source(endpoint).url(manifest, "config.json"), question)


def fetch_manifest(endpoint, repo_id, revision, token="", timeout=30, say=None):
    """The hub's own list of a model's files: {repo_id, revision, commit, files: {name: {size, sha256 or blob_id}}}. Raises HubError.

    A hub that throttles is asked again, three times; `say` is told of each.
    """
    question = _Question(endpoint, repo_id, revision, token, timeout, "list of files", MAXIMUM_LIST_BYTES, say or (lambda sentence: None))
    commit, files = _source(endpoint).listed(question)
    return {"repo_id": repo_id, "revision": revision, "commit": commit, "files": files}


def fetch_tensors(endpoint, manifest, token="", timeout=30, say=None):
    """The names of the checkpoint's tensors, from its index or the head of its only file; None where there is neither. Raises HubError."""
    name = INDEX if INDEX in manifest["files"] else WEIGHTS
    if name not in manifest["files"]:
        return None
    question = _Question(endpoint, manifest["repo_id"], manifest["commit"], token, timeout, name, MAXIMUM_LIST_BYTES, say or (lambda sentence: None))
    url = _source(endpoint).url(manifest, name)
    if name == INDEX:
        return sorted(_object(url, question).get("weight_map", {}))
    # https://github.com/huggingface/safetensors#format: the length of the head, the head, then the tensors, which stay where they are.
    head = _asked(question, lambda: _head(_open(url, token, timeout)))
    return sorted(key for key in _parsed(head, url) if key != "__metadata__")


def file_urls(endpoint, manifest):
    """{name: URL} of a manifest's files; None for a Hugging Face hub, whose own client fetches them."""
    source = _source(endpoint)
    return None if isinstance(source, _HuggingFace) else {name: source.url(manifest, name) for name in manifest["files"]}


class _Question:
    """What is asked of a hub, for the sentences that say why there is no answer."""

    def __init__(self, endpoint, repo_id, revision, token, timeout, what="config.json", maximum=MAXIMUM_BYTES, say=None):
        self.endpoint, self.repo_id, self.revision, self.token, self.timeout = endpoint, repo_id, revision, token, timeout
        self.what, self.maximum, self.say = what, maximum, say


def _head(response):
    (length,) = struct.unpack("<Q", response.read(8))
    return response.read(min(length, MAXIMUM_LIST_BYTES))


def _object(url, question):
    """A JSON object of the hub's."""
    data = _asked(question, lambda: _open(url, question.token, question.timeout).read(question.maximum + 1))
    if len(data) > question.maximum:
        raise HubError(f"What {url} answers is larger than {question.maximum} bytes and so no {question.what}: check the hub's address.")
    return _parsed(data, url)


def _parsed(data, url):
    try:
        document = json.loads(data.decode("utf-8"))
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise HubError(f"What {url} answers is not a JSON object: check the hub's address, and whether a proxy answers in its place.")
    return document


def _asked(question, ask):
    """What the hub answers; when it throttles and somebody listens, after a pause."""
    for pause in [*(PAUSES if question.say else ()), None]:
        try:
            return ask()
        except HTTPError as error:
            if error.code != 429 or pause is None:
                raise HubError(_refusal(error, question))
            told = error.headers.get("Retry-After") or ""
            pause = min(int(told) if told.isdigit() else pause, LONGEST_PAUSE)
            question.say(f"{question.endpoint} throttles this network address (HTTP 429): asked again after {pause} s.")
            time.sleep(pause)
        except Exception as error:  # open_url raises from several libraries: name resolution, time-outs, TLS, proxies.
            why = getattr(error, "reason", None) or error
            sentence = f"The hub {question.endpoint} cannot be reached ({str(why) or type(why).__name__}): check the address, the proxy and the network."
            raise HubError(sentence, True)


def _open(url, token, timeout, method="GET"):
    """The response. Redirects are followed here, because the token must not go to another server."""
    origin = urlsplit(url)[:2]
    for dummy in range(MAXIMUM_REDIRECTS):
        headers = {"Authorization": f"Bearer {token}"} if token and urlsplit(url)[:2] == origin else {}
        try:
            return open_url(url, method=method, headers=headers, timeout=timeout, follow_redirects="no", http_agent="gpuhosts.inference")
        except HTTPError as error:
            target = error.headers.get("Location")
            if error.code not in REDIRECTS or not target:
                raise
            url = urljoin(url, target)
    raise OSError(f"more than {MAXIMUM_REDIRECTS} redirects")


def _refusal(error, question):
    """A sentence for an HTTP status. The hub says more in X-Error-Code; a mirror may not."""
    endpoint, repo_id, revision = question.endpoint, question.repo_id, question.revision
    code = error.headers.get("X-Error-Code") or ""
    if code == "EntryNotFound":
        return f"{repo_id} at revision {revision} has no {question.what} on {endpoint}: it is not a model that the engine can load."
    if code == "RevisionNotFound":
        return f"{repo_id} has no revision {revision} on {endpoint}: name a branch, tag or commit that it has."
    if code != "RepoNotFound" and error.code in (401, 403):
        gate = "the token that was given may not read it" if question.token else "no token was given"
        return (
            f"{endpoint} refuses {repo_id} (HTTP {error.code}), and {gate}: the model is gated or private (then accept its terms and give the token of an "
            "account that has access) or there is no model of that name."
        )
    if code == "RepoNotFound" or error.code == 404:
        return f"{endpoint} has no {repo_id} at revision {revision} (HTTP {error.code}): check both names; a private model needs a token."
    if error.code == 429:
        return f"{endpoint} throttles this network address (HTTP 429): wait, or use a mirror of the hub."
    return f"{endpoint} answers HTTP {error.code} for the {question.what} of {repo_id}: try again, or use a mirror of the hub."
