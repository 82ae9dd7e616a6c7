# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the hosts of one instance run so that Ray joins them."""

from __future__ import annotations

DEFAULT_PORT = 6379  # Ray's own; the ports that follow it are Ray's too
