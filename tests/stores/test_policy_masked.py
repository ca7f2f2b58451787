"""Secrets in a policy's text: hidden from a page, kept by an edit."""

from __future__ import annotations

import pytest

from app.stores.policy_masked import UnknownSecret, mask, unmask, without_values

TEXT = """\
version: 1   # was sk-live-0123456789abcdef once
providers:
  a: {base_url: "https://a.example/v1", api_key: plain-secret, headers: {x-team: blue-secret, x-var: "${TEAM}"}}
  b:
    base_url: https://user:pass-secret@b.example/v1
    api_key: "${B_KEY}"
  c: {base_url: "https://c.example", api_key: "${C_KEY:-default-secret}"}
  d: {base_url: "https://d.example", headers: {authorization: "Bearer ${D_TOKEN}"}, query: {key: query-secret}}
notices: {webhook: "https://hooks.example/T0/secret", at: [0.5]}
models: {m: {provider: a}}
"""


def test_no_secret_is_shown_and_none_is_lost() -> None:
    shown, kept = mask(TEXT)
    assert "secret" not in shown.replace("(kept secret", "")
    assert "0123456789abcdef" not in shown
    assert len(kept) == 7
    for variable in ("${TEAM}", "${B_KEY}", "Bearer ${D_TOKEN}"):
        assert variable in shown
    assert unmask(shown, kept) == TEXT


def test_an_edit_keeps_what_it_does_not_touch() -> None:
    shown, kept = mask(TEXT)
    edited = shown.replace("models: {m: {provider: a}}", "models: {m: {provider: b}}")
    assert unmask(edited, kept) == TEXT.replace("{m: {provider: a}}", "{m: {provider: b}}")


def test_a_secret_that_is_not_there() -> None:
    with pytest.raises(UnknownSecret, match="9"):
        unmask('api_key: "(kept secret 9)"', ("one",))


def test_anchors_hide_what_they_stand_for() -> None:
    shown, kept = mask("x-k: &k hidden-value\nproviders: {a: {api_key: *k}}\n")
    assert "hidden-value" not in shown
    assert "hidden-value" in kept[0]


def test_text_that_is_no_yaml() -> None:
    with pytest.raises(ValueError, match="not YAML"):
        mask("a: [")


def test_what_is_told_of_a_draft_gives_nothing_away() -> None:
    draft = 'base_url: "http://${TOKEN}/v1"'
    told = "provider a: base_url http://x -> http://TOP-secret/v1; key kept-one"
    assert without_values(told, draft, {"TOKEN": "top-SECRET", "OTHER": "provider"}, ('"kept-one"',)) == (
        "provider a: base_url http://x -> http://${TOKEN}/v1; key (kept secret)"
    )
