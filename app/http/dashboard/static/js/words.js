// The words for what calls and scopes come to, and how grave each is.

const OUTCOMES = {
  completed: ["completed", "good"],
  cost_killed: ["cut at its cap", "bad"],
  step_exhausted: ["out of calls", "bad"],
  thrash_killed: ["going in circles", "bad"],
  task_timeout: ["out of time", "bad"],
  denied: ["denied", "warn"],
  client_gone: ["client left", ""],
  timeout: ["provider too slow", "warn"],
  rate_limit: ["rate limited", "warn"],
  quota: ["provider account", "warn"],
  api_error: ["provider error", "warn"],
  bad_request: ["bad request", ""],
  ledger_down: ["ledger down", "bad"],
  gateway_error: ["gateway error", "bad"],
};

/** [words, mark] of an outcome. */
export function outcome(name) {
  return OUTCOMES[name] ?? [String(name).replaceAll("_", " "), ""];
}

export function outcomes() {
  return Object.keys(OUTCOMES);
}

/** "task:alice:job|model:small" as people say it. */
export function scopeName(scope) {
  if (!scope) return "";
  if (scope.startsWith("task:")) {
    const [task, model] = scope.split("|model:");
    const id = task.split(":").slice(2).join(":");
    return model === undefined ? `task ${id}` : `${model} in task ${id}`;
  }
  const [owner, ...rest] = scope.split(":");
  if (owner === "key" || owner === "team") return `${owner} ${rest[0]}, ${rest[1]}`;
  if (owner === "user") return `user ${rest[1].slice(0, 8)} of ${rest[0]}, ${rest[2]}`;
  if (owner === "global") return `everybody, ${rest[0]}`;
  return `the ${scope}'s own cap`;
}

/** The kind of a scope: request, task, model, key day, ... */
export function scopeKind(scope) {
  if (!scope) return "";
  if (scope.startsWith("task:")) return scope.includes("|model:") ? "model" : "task";
  const [owner, ...rest] = scope.split(":");
  if (owner === "key" || owner === "team") return `${owner}'s ${rest[1]}`;
  if (owner === "user") return `user's ${rest[2]}`;
  return owner === "global" ? `everybody's ${rest[0]}` : scope;
}
