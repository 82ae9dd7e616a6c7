# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""`python3 -m vllm.entrypoints.openai.api_server` of the simulated engine."""

from simulated_engine.main import main

if __name__ == "__main__":
    main()
