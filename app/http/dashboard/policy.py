"""The policy over HTTP: what is in force and was, what is wrong with a draft, and an edit where that is allowed."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response

from app.core.errors import BadRequest, Conflict, Forbidden, TracesDown
from app.core.raw import UNREADABLE
from app.http.bodies import bounded_body
from app.http.dashboard.ask import FiguresUnavailable, Replay
from app.http.dashboard.gate import Gate, as_json, raw_json
from app.http.hot import key_name
from app.http.routes import Routes
from app.stores.policies import Policies, StaleEdit
from app.stores.policy_diff import diff_policies
from app.stores.policy_history import PolicyHistory
from app.stores.policy_masked import UnknownSecret, mask, unmask, without_values
from app.stores.policy_yaml import PolicyError, Problem

MAX_BYTES = 1024 * 1024
SHOWN_PROBLEMS = 50
SHOWN_HISTORY = 50
REPLAYED = "7d"
NOT_EDITABLE = "Editing the policy on the dashboard is not allowed: the operator sets BURSAR_POLICY_EDIT=1."

log = structlog.get_logger()


class Draft(msgspec.Struct, forbid_unknown_fields=True):
    """A file's new text; `base` is the version that it was made from."""

    text: str
    file: str
    base: str = ""


def serve_policy(
    guarded: Routes, gate: Gate, policies: Policies, history: PolicyHistory, replay: Replay, *, editable: bool
) -> None:
    """Add the routes to those for operators."""

    @guarded.post("/policy/replay")
    async def rehearse(request: Request) -> Response:
        draft = await _draft(request)
        data = _text(policies, draft).encode()
        try:
            await asyncio.to_thread(policies.draft, draft.file, data)
            return raw_json(await replay(policies.with_text(draft.file, data), REPLAYED))
        except PolicyError:
            raise BadRequest("Only a draft without errors can be replayed.", param="text") from None
        except FiguresUnavailable as error:
            raise TracesDown(str(error), headers={"retry-after": "10"}) from None

    @guarded.get("/policy")
    async def policy(_: Request) -> Response:
        return as_json({**await asyncio.to_thread(shown, policies, history), "editable": editable})

    @guarded.post("/policy/check")
    async def check(request: Request) -> Response:
        return as_json(await asyncio.to_thread(checked, policies, await _draft(request)))

    @guarded.put("/policy")
    async def write(request: Request) -> Response:
        key = gate.operator(request)
        if not editable:
            raise Forbidden(NOT_EDITABLE)
        draft = await _draft(request)
        data = _text(policies, draft).encode()
        try:
            new = await policies.write(draft.file, data, draft.base)
        except StaleEdit:
            raise Conflict("The policy has changed since this draft was begun; nothing was written.") from None
        except PolicyError as error:
            reason = _safe(str(error.problems[0]), policies, draft)
            raise BadRequest(f"The draft was not written: {reason}", param="text") from None
        except OSError as error:
            raise Conflict(f"The file cannot be written: {error.strerror or type(error).__name__}.") from None
        log.info("the policy was edited on the dashboard", key=key_name(key), version=new.version)
        return as_json({"version": new.version})


def shown(policies: Policies, history: PolicyHistory) -> dict[str, Any]:
    """What is in force, without secrets; what is wrong with what is on disk; what was in force before."""
    policy = policies.current
    return {
        "version": policy.version,
        "prices_version": policy.prices_version,
        "source": policy.source,
        "warnings": policy.warnings,
        "problems": [_problem(problem) for problem in policies.last_error[:SHOWN_PROBLEMS]],
        "files": [{"file": source.file, "text": mask(_decoded(source.data))[0]} for source in policies.sources],
        "history": history.recent(SHOWN_HISTORY),
        "facts": {
            "providers": len(policy.providers),
            "models": len(policy.models),
            "routes": len(policy.routes),
            "keys": len(policy.named_keys()),
        },
    }


def checked(policies: Policies, draft: Draft) -> dict[str, Any]:
    """All that is wrong with a draft, or what it would change. Raises BadRequest."""
    text = _text(policies, draft)
    try:
        new = policies.draft(draft.file, text.encode())
    except PolicyError as error:
        problems = [_problem(problem) for problem in error.problems[:SHOWN_PROBLEMS]]
        return {"good": False, "problems": _safe(problems, policies, draft)}
    found = {
        "changes": diff_policies(policies.current, new),
        "warnings": [warning for warning in new.warnings if warning not in policies.current.warnings],
    }
    return {"good": True, "version": new.version, "problems": [], **_safe(found, policies, draft)}


def _safe(found: Any, policies: Policies, draft: Draft) -> Any:
    """Without the values of secrets and variables, which nobody is shown."""
    told = msgspec.json.encode(found).decode()
    return msgspec.json.decode(without_values(told, draft.text, os.environ, _kept(policies, draft.file)))


def _kept(policies: Policies, file: str) -> tuple[str, ...]:
    """The secrets of a file in force. Raises BadRequest where the policy has no such file."""
    for source in policies.sources:
        if source.file == file:
            return mask(_decoded(source.data))[1]
    raise BadRequest("There is no such file in this policy.", param="file")


def _text(policies: Policies, draft: Draft) -> str:
    """The draft with the secrets of the file it takes the place of."""
    try:
        return unmask(draft.text, _kept(policies, draft.file))
    except UnknownSecret as error:
        raise BadRequest(f"There is no kept secret {error} in this file.", param="text") from None


async def _draft(request: Request) -> Draft:
    try:
        return msgspec.json.decode(await bounded_body(request, MAX_BYTES), type=Draft)
    except UNREADABLE as error:
        raise BadRequest(f"The draft cannot be read: {error}.") from None


def _problem(problem: Problem) -> dict[str, Any]:
    return {
        "file": problem.file,
        "line": problem.line,
        "column": problem.column,
        "where": problem.where,
        "message": problem.message,
    }


def _decoded(data: bytes) -> str:
    return data.decode("utf-8-sig")
