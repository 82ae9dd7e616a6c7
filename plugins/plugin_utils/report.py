# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The shape of a report on a fleet, JSON, whoever writes one.

    kind          "fleet", or "rollout" of what was done to it
    generated     when, UTC, as 2026-11-28T08:00:00Z
    title         one line
    summary       [{label, value, state}]: the figures at the top. state is good, warning, bad or plain, here and everywhere below
    hosts         [{name, state, problem, facts, cards, instances}]
      problem     why nothing else is known of the host, or null: it was not reached
      facts       [{label, value}]: system, driver, CUDA, Docker
      cards       [{index, name, memory_total_bytes}]
      instances   [{name, model, state, status, facts, memory, benchmarks}]
        status    in words: serves, quarantined, not there, runs on rung 1 of its ladder, ...
        facts     [{label, value}]: engine, image, revision, port, KV cache, tokens per second; what is not known is left out
        memory    [{rank, total, planned, measured}], bytes: what the plan says that a card will hold, and what the engine measured; null is unknown
        benchmarks [{scenario, time, rows, plot, status}]: the last of each scenario. rows: [{label, value, article}], plot: an SVG, or null
    outdated      [{host, instance, what, is, wanted}]: what differs from the inventory. instance may be null
    alerts        [{name, state, host, instance, summary, since}], null where no Prometheus was asked
    notes         sentences about what could not be gathered
    events        [{time, host, instance, state, text}]: what was done in order, in a rollout's report; [] otherwise
"""

from __future__ import annotations
