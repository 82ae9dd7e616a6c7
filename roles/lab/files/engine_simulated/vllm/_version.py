# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where the real package says its version, for whoever reads it without importing the package."""

__version__ = version = "0.8.5"
