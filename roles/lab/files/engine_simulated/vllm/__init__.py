# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module path of the real engine, so that its entry point works unchanged. The code is in `simulated_engine`."""

from ._version import __version__

__all__ = ["__version__"]
