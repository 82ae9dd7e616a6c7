"""Make the checkout importable as `ansible_collections.gpuhosts.inference`, the way Ansible itself does."""

import pathlib

from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder

_AnsibleCollectionFinder(paths=[str(pathlib.Path(__file__).parents[1] / "collections")])._install()
