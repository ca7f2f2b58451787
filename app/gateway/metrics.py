"""All metrics, in one place; label values are bounded (names from the policy, or fixed words)."""

from __future__ import annotations

from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from app.core.policy import Candidate
from app.gateway.unlearned import Unlearned

disable_created_metrics()  # type: ignore[no-untyped-call]  # they double the series and no dashboard reads them

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_TTFT = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_OVERHEAD = (0.0002, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5)
LiveMode = Literal["livesum", "livemin", "livemax", "livemostrecent"]
"""How workers' gauges become one; in modes that do not end with the worker, the dead would be counted for ever."""
UNLISTED = "unlisted"
"""Stands for models that the policy does not list: clients name them, so they cannot be label values."""


def label_of(candidate: Candidate) -> tuple[str, str]:
    """The model and provider labels of a candidate."""
    return (candidate.name if candidate.listed else UNLISTED), candidate.provider.name


class Metrics:
    """Everything `/metrics` shows; with several workers prometheus_client's multiprocess mode sums them."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        model = ["model", "provider"]

        def counter(name: str, text: str, labels: list[str]) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def gauge(name: str, text: str, labels: list[str] | None = None, mode: LiveMode = "livesum") -> Gauge:
            return Gauge(name, text, labels or [], registry=registry, multiprocess_mode=mode)

        self.requests = counter("bursar_requests_total", "Calls by how they ended.", ["route", *model, "outcome"])
        self.cost = counter("bursar_cost_usd_total", "Dollars settled.", ["route", *model])
        self.tokens = counter("bursar_tokens_total", "Tokens billed, estimated where a call was cut.", [*model, "kind"])
        self.duration = Histogram(
            "bursar_request_duration_seconds", "From request to last byte.", model, buckets=_SECONDS, registry=registry
        )
        self.ttft = Histogram(
            "bursar_time_to_first_token_seconds",
            "From request to first event.",
            model,
            buckets=_TTFT,
            registry=registry,
        )
        self.overhead = Histogram(
            "bursar_overhead_seconds",
            "The gateway's own time before the upstream is asked.",
            buckets=_OVERHEAD,
            registry=registry,
        )
        self.inflight = gauge("bursar_requests_in_flight", "Calls under way.")
        self.workers = gauge("bursar_workers", "Worker processes of this gateway.")
        self.cuts = counter("bursar_cuts_total", "Calls cut at a cap.", ["scope"])
        self.denials = counter(
            "bursar_denials_total", "Calls denied before the upstream was asked.", ["scope", "reason"]
        )
        self.window_used = gauge(
            "bursar_window_used_ratio",
            "Spent part of each capped hour, day, month and total (1: all of it); NaN: it has no cap any more.",
            ["scope", "name"],
            mode="livemostrecent",
        )
        self.cache_hits = counter("bursar_cache_hits_total", "Requests answered by the policy's cache of replies.", [])
        self.cache_saved = counter(
            "bursar_cache_saved_usd_total",
            "What the replies given from the cache cost the first time, as far as known.",
            [],
        )
        self.responses_stored = counter(
            "bursar_responses_stored_total",
            "Responses to be stored, by result: stored, too_large, or failed (the store did not answer).",
            ["result"],
        )
        self.notices = counter(
            "bursar_notices_total",
            "Notices of money by what became of them: posted, or failed (tried again).",
            ["result"],
        )
        self.errors = counter("bursar_errors_total", "Error replies.", ["label"])
        self.attempts = counter(
            "bursar_upstream_attempts_total", "Attempts by candidate and result.", [*model, "result"]
        )
        self.fallbacks = counter("bursar_fallbacks_total", "Attempts that went on to another candidate.", model)
        self.slow = counter(
            "bursar_slow_total", "Calls that took longer than expected; this only warns.", [*model, "kind"]
        )
        self.circuit = gauge("bursar_circuit_state", "0 closed, 1 half-open, 2 open.", model, mode="livemax")
        self.decisions = counter(
            "bursar_decisions_total",
            "Decisions by route, router they were assigned to, task type and choice.",
            ["route", "router", "task_type", "model"],
        )
        self.deferrals = counter(
            "bursar_router_deferrals_total",
            "Decisions that a router left to the heuristic: its confidence was below min_confidence.",
            ["route", "router"],
        )
        router = ["route", "router"]
        self.split_calls = counter(
            "bursar_split_calls_total", "Calls of split routes, by router.", [*router, "outcome"]
        )
        self.split_cost = counter("bursar_split_cost_usd_total", "Dollars settled on split routes, by router.", router)
        self.feedback = counter("bursar_feedback_total", "Feedback received.", ["source", "outcome"])
        of_success = ["measure", "task_type", "window"]
        self.success = gauge(
            "bursar_success_metric",
            "The ten measures of success (GET /v1/success-metrics); NaN where there is not enough data.",
            of_success,
            mode="livemostrecent",
        )
        self.success_missed = gauge(
            "bursar_success_metric_missed",
            "1 while a measure's whole 95 % interval lies on the wrong side of its target.",
            of_success,
            mode="livemostrecent",
        )
        self.success_target = gauge(
            "bursar_success_metric_target",
            "The value that a measure should stay below (or above, if more is better).",
            ["measure"],
            mode="livemostrecent",
        )
        self.ledger_up = gauge("bursar_ledger_up", "1 while the ledger answers.", mode="livemin")
        self.ledger_up.set(1)
        self.ledger_errors = Counter("bursar_ledger_errors_total", "Ledger verbs that failed.", registry=registry)
        self.ledger_open_calls = Counter(
            "bursar_ledger_open_calls_total", "Calls let through on the open allowance.", registry=registry
        )
        self.ledger_owed = gauge("bursar_ledger_owed_settlements", "Settlements waiting for the ledger.")
        self.reservations_lost = Counter(
            "bursar_reservations_lost_total", "Holds that expired before their calls were settled.", registry=registry
        )
        self.reservations_expired = Counter(
            "bursar_reservations_expired_total",
            "Holds of dead processes that were charged and ended.",
            registry=registry,
        )
        self.settlements_forgotten = Counter(
            "bursar_settlements_forgotten_total",
            "Settlements that the ledger had acknowledged and forgotten, and that were made again.",
            registry=registry,
        )
        self.traces_lost = Counter(
            "bursar_traces_lost_total", "Finished calls whose record could not be written.", registry=registry
        )
        self.policy_swaps = Counter("bursar_policy_swaps_total", "Policies taken into force.", registry=registry)
        self.policy_failed = gauge(
            "bursar_policy_last_load_failed", "1 while the policy on disk is not the one in force.", mode="livemax"
        )
        self.policy_replays = counter(
            "bursar_policy_replays_total",
            "Edited policies that were replayed on recorded traffic, by what became of them.",
            ["result"],
        )
        self.policy_replay_change = gauge(
            "bursar_policy_replay_change",
            "What the last replayed policy would change: dollars per decision (as a share), success. NaN: not "
            "estimated.",
            ["what"],
            mode="livemostrecent",
        )
        self.policy_loaded = gauge(
            "bursar_policy_loaded_timestamp_seconds", "When the policy in force was loaded.", mode="livemax"
        )
        self.explored = counter(
            "bursar_explored_total", "Calls for which exploring chose another candidate.", ["route", "model"]
        )
        self.explored_cost = counter(
            "bursar_explored_cost_usd_total",
            "Dollars settled on calls for which exploring chose another candidate.",
            ["route"],
        )
        self.snapshot = gauge(
            "bursar_router_snapshot",
            "The snapshot of the learned router in force; 0: its weights alone.",
            mode="livemax",
        )
        self.snapshot_swaps = Counter(
            "bursar_router_snapshot_swaps_total", "Snapshots taken into force.", registry=registry
        )
        self.snapshots_refused = gauge(
            "bursar_router_snapshots_refused",
            "Snapshots since the one in force that predicted held-out outcomes worse, and were not published.",
            mode="livemax",
        )
        self.unheard = gauge(
            "bursar_router_unheard_calls",
            "Calls between the two latest entries on record that the learner let go before all their signs had spoken.",
            mode="livemax",
        )
        self.held_out = gauge(
            "bursar_router_held_out_labels",
            "Held-out labels by which the latest snapshot was tried; with less than 20 it is postponed.",
            mode="livemax",
        )
        self.unlearned = Unlearned(
            gauge(
                "bursar_feedback_unlearned_seconds",
                "How long feedback has waited that no learner has taken in; 0: none waits.",
                mode="livemax",
            )
        )
        self.quarantined = gauge(
            "bursar_quarantine_drop",
            "Success that a model in quarantine has lost at one kind of work; 0: it is back.",
            ["model", "task_type", "cause"],
            mode="livemax",
        )
