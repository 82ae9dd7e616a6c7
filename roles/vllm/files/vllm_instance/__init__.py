# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What runs on a host beside its engines: starts them, judges their ends, watches that they get on, and keeps what happened.

Standard library only, Python 3.9 or newer: it must run on every host that an engine runs on. docs/watchdog.md says what it does.
"""
