# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""`python3 /usr/local/lib/gpuhosts/vllm_instance COMMAND`."""

import os
import sys

# A folder that is started as a program is no package to itself: its own modules are found from the folder above.
sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from vllm_instance import cli  # noqa: E402

sys.exit(cli.main(sys.argv[1:]))
