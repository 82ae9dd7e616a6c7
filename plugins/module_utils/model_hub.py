# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One small file of a model from a Hugging Face hub, or from a mirror of it."""

from __future__ import annotations

import json
from urllib.error import HTTPError
from urllib.parse import quote, urljoin, urlsplit

from ansible.module_utils.urls import open_url

# The longest config.json of a public model has a few hundred kilobytes; anything larger is something else.
MAXIMUM_BYTES = 4 * 1024 * 1024
REDIRECTS = (301, 302, 303, 307, 308)
MAXIMUM_REDIRECTS = 5


class HubError(Exception):
    """The hub has not given the file; the text says why and what to do. C(silent): it gave no answer at all, and need not be asked again."""

    def __init__(self, text, silent=False):
        super().__init__(text)
        self.silent = silent


def config_url(endpoint, repo_id, revision):
    """Where the hub has a model's config.json. A revision may be a name with slashes, such as C(refs/pr/1)."""
    return "{}/{}/resolve/{}/config.json".format(endpoint.rstrip("/"), quote(repo_id, safe="/"), quote(revision, safe=""))


def fetch_config(endpoint, repo_id, revision, token="", timeout=10):
    """The model's config.json as a dict. Raises HubError. Proxies are those of the environment."""
    url = config_url(endpoint, repo_id, revision)
    try:
        data = _get(url, token, timeout)
    except HTTPError as error:
        raise HubError(_refusal(error, endpoint, repo_id, revision, token))
    except Exception as error:  # open_url raises from several libraries: name resolution, time-outs, TLS, proxies.
        why = getattr(error, "reason", None) or error
        raise HubError(f"The hub {endpoint} cannot be reached ({str(why) or type(why).__name__}): check the address, the proxy and the network.", True)
    if len(data) > MAXIMUM_BYTES:
        raise HubError(f"What {url} answers is larger than {MAXIMUM_BYTES} bytes and so no config.json: check the hub's address.")
    try:
        config = json.loads(data.decode("utf-8"))
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise HubError(f"What {url} answers is not a JSON object: check the hub's address, and whether a proxy answers in its place.")
    return config


def _get(url, token, timeout):
    """The body. Redirects are followed here, because the token must not go to another server."""
    origin = urlsplit(url)[:2]
    for dummy in range(MAXIMUM_REDIRECTS):
        headers = {"Authorization": f"Bearer {token}"} if token and urlsplit(url)[:2] == origin else {}
        try:
            return open_url(url, headers=headers, timeout=timeout, follow_redirects="no", http_agent="gpuhosts.inference").read(MAXIMUM_BYTES + 1)
        except HTTPError as error:
            target = error.headers.get("Location")
            if error.code not in REDIRECTS or not target:
                raise
            url = urljoin(url, target)
    raise OSError(f"more than {MAXIMUM_REDIRECTS} redirects")


def _refusal(error, endpoint, repo_id, revision, token):
    """A sentence for an HTTP status. The hub says more in X-Error-Code; a mirror may not."""
    code = error.headers.get("X-Error-Code") or ""
    if code == "EntryNotFound":
        return f"{repo_id} at revision {revision} has no config.json on {endpoint}: it is not a model that the engine can load."
    if code == "RevisionNotFound":
        return f"{repo_id} has no revision {revision} on {endpoint}: name a branch, tag or commit that it has."
    if code != "RepoNotFound" and error.code in (401, 403):
        gate = "the token that was given may not read it" if token else "no token was given"
        return (
            f"{endpoint} refuses {repo_id} (HTTP {error.code}), and {gate}: the model is gated or private (then accept its terms and give the token of an "
            "account that has access) or there is no model of that name."
        )
    if code == "RepoNotFound" or error.code == 404:
        return f"{endpoint} has no {repo_id} at revision {revision} (HTTP {error.code}): check both names; a private model needs a token."
    if error.code == 429:
        return f"{endpoint} throttles this network address (HTTP 429): wait, or use a mirror of the hub."
    return f"{endpoint} answers HTTP {error.code} for the config.json of {repo_id}: try again, or use a mirror of the hub."
