"""A price that is cut tenfold in the YAML moves traffic within one version of the policy, without a restart."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.http.live import LiveGateway
from tests.http.test_http_policy_edits import edit
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Script, words

CALLS = 20


def policy(upstream: ScriptedUpstream, dollars: float) -> str:
    """Two models that are both adequate; `b`'s price is what changes."""
    return f"""version: 1
providers: {{p: {{base_url: "{upstream.url}"}}}}
models:
  a: {{provider: p, tier: 3, pricing: {{input_per_1k: 0.001, output_per_1k: 0.004}}, budgets: {{max_cost_usd: 0}}}}
  b:
    provider: p
    tier: 3
    pricing: {{input_per_1k: {dollars}, output_per_1k: {4 * dollars}}}
    budgets: {{max_cost_usd: 0}}
routes:
  auto: {{candidates: [a, b], adequacy: 0.3}}
"""


def served(gateway: LiveGateway) -> Counter[str]:
    answers = [gateway.chat(model="auto") for _ in range(CALLS)]
    assert {answer.status for answer in answers} == {200}
    return Counter(answer.headers["x-bursar-model"] for answer in answers)


def test_traffic_follows_a_price_within_one_version(tmp_path: Path) -> None:
    with (
        ScriptedUpstream(lambda _: Script.of(words("yes"))) as upstream,
        LiveGateway(policy(upstream, 0.003), tmp_path) as gateway,
    ):
        assert served(gateway) == {"a": CALLS}
        first = gateway.gateway.policies.current.version
        second = edit(gateway, policy(upstream, 0.0003))
        assert served(gateway) == {"b": CALLS}
        assert second in str(gateway.decision(gateway.chat(model="auto")))
        assert second != first
        edit(gateway, policy(upstream, 0.003))
        assert served(gateway) == {"a": CALLS}
