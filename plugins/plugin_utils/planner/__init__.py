# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a GPU host can serve, and how: pure Python. Nothing in here imports Ansible, reads a file or runs a command.

The package also works on its own, copied as a plain `planner`: inside it, imports are relative.
"""
