"""The tests import the collection as `ansible_collections.gpuhosts.inference`, the way Ansible itself does."""

import pathlib

from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder

_AnsibleCollectionFinder(paths=[str(pathlib.Path(__file__).parents[3] / "collections")])._install()
