// Policy: what is in force, what is wrong with what is on disk, what was before, and what a draft would change.

import { get, send } from "../api.js";
import { fill, h, say } from "../dom.js";
import { count, moment } from "../format.js";
import { fault, mark, pageHead, reading, sheet, stats } from "../parts.js";
import { tableOf } from "../table.js";
import { replaySheet } from "./policy_replay.js";

export async function policy(page, _, { every }) {
  const facts = stats({ version: "Version in force", models: "Models", routes: "Routes", keys: "Keys", state: "On disk" });
  const trouble = h("div", {});
  const history = sheet("History", { note: "the latest first" }, reading());
  const draft = sheet("Draft", {}, reading());
  const replay = replaySheet();
  fill(page, pageHead("Policy", null), trouble, facts.element, h("div", { class: "grid" }, [
    h("div", { class: "two-thirds stack" }, draft.element, replay.element),
    h("div", { class: "third stack" }, history.element),
  ]));
  let version = null;

  async function load() {
    const found = await get("policy");
    facts.set("version", found.version, found.source);
    facts.set("models", count(found.facts.models), found.facts.providers === 1 ? "of one provider" : `of ${count(found.facts.providers)} providers`);
    facts.set("routes", count(found.facts.routes));
    facts.set("keys", found.facts.keys ? count(found.facts.keys) : "none", found.facts.keys ? "" : "open, on this machine only");
    facts.set("state", found.problems.length ? "has problems" : "in force", found.problems.length ? "the last good policy stays" : "");
    fill(trouble, problemsOf(found.problems), notes(found.warnings));
    if (version === found.version) return;
    version = found.version;
    history.show(historyOf(found.history, found.version));
    draft.show(editor(found, { reload: load, replay: replay.use }));
  }

  await load();
  every(10, () => load().catch((error) => fill(trouble, fault(error))));
}

function notes(warnings) {
  return warnings.length ? h("details", { class: "notes" }, h("summary", {}, `${warnings.length} ${warnings.length === 1 ? "note" : "notes"} on this policy`), h("ul", {}, warnings.map((text) => h("li", {}, text)))) : null;
}

/** The last edit on disk, where it is not in force. */
function problemsOf(problems) {
  if (problems.length === 0) return null;
  return sheet("The last edit is not in force", { flush: true, note: "it has problems, so the policy before it stays" }, tableOf({ caption: "Problems of the last edit", columns: PROBLEM }, problems)).element;
}

const PROBLEM = [
  { label: "Place", head: true, class: "name", cell: (r) => h("code", {}, `${r.file.split("/").at(-1)}:${r.line}:${r.column}`) },
  { label: "Where", class: "name", cell: (r) => (r.where ? h("code", {}, r.where) : "") },
  { label: "Problem", cell: (r) => r.message },
];

function historyOf(entries, current) {
  if (entries.length === 0) return h("p", { class: "empty" }, "No policy has been noted yet.");
  return h(
    "ol",
    { class: "history" },
    entries.map((entry, at) =>
      h(
        "li",
        {},
        h("div", { class: "line" }, h("code", {}, entry.version), at === 0 && entry.version === current ? mark("in force", "good") : null, h("span", { class: "faint" }, moment(entry.at_s))),
        entry.changes.length ? h("details", { open: at === 0 }, h("summary", {}, `${entry.changes.length} ${entry.changes.length === 1 ? "change" : "changes"}`), h("ul", { class: "changes" }, entry.changes.map((text) => h("li", {}, text)))) : h("p", { class: "faint" }, "found at a start"),
      ),
    ),
  );
}

function editor(found, { reload, replay }) {
  let file = found.files[0];
  const text = h("textarea", { id: "draft", class: "mono", rows: 22, spellcheck: "false", autocomplete: "off", wrap: "off" });
  text.value = file.text;
  const told = h("div", { class: "told" });
  const files = found.files.length > 1
    ? h("div", { class: "field" }, h("label", { for: "draft-file" }, "File"), h("select", { id: "draft-file", on: { change: (event) => choose(Number(event.target.value)) } }, found.files.map((one, at) => h("option", { value: at }, one.file))))
    : null;
  const write = h("button", { type: "button", class: "main", disabled: true, on: { click: () => store() } }, "Write it");
  const check = h("button", { type: "button", class: "plain", on: { click: () => look() } }, "Check the draft");
  const back = h("button", { type: "button", class: "quiet", on: { click: () => choose(found.files.indexOf(file)) } }, "Back to what is in force");
  let good = null;

  function choose(at) {
    file = found.files[at];
    text.value = file.text;
    changed();
    fill(told);
  }

  function changed() {
    good = null;
    write.disabled = true;
  }
  text.addEventListener("input", changed);

  async function look() {
    const asked = text.value;
    try {
      const answer = await send("POST", "policy/check", { text: asked, file: file.file });
      fill(told, answer.good ? goodDraft(answer, found.version) : badDraft(answer.problems, text));
      say(answer.good ? "The draft is good." : `The draft has ${answer.problems.length} problems.`);
      good = answer.good && asked === text.value && answer.version !== found.version ? asked : null;
      write.disabled = good === null;
      replay(answer.good ? { text: asked, file: file.file } : null);
    } catch (error) {
      fill(told, fault(error));
    }
  }

  async function store() {
    write.disabled = true;
    try {
      const { version } = await send("PUT", "policy", { text: good, file: file.file, base: found.version });
      say(`Written: version ${version} is in force.`);
      await reload();
    } catch (error) {
      fill(told, fault(error));
    }
  }

  return [
    h("p", { class: "note" }, found.editable ? "Change the text or paste another; check it, then write it." : "Change the text or paste another, and see what it would do. Writing it here is not allowed: BURSAR_POLICY_EDIT=1 allows it."),
    h("div", { class: "fields" }, files),
    h("div", { class: "field" }, h("label", { for: "draft" }, file.file), text),
    h("div", { class: "fields actions" }, check, found.editable ? write : null, back),
    told,
  ].filter(Boolean);
}

function goodDraft(answer, current) {
  if (answer.version === current) return h("p", { class: "note" }, "This is the text in force.");
  return [
    h("p", { class: "verdict" }, mark("good", "good"), ` version ${answer.version} would change:`),
    answer.changes.length ? h("ul", { class: "changes" }, answer.changes.map((text) => h("li", {}, text))) : h("p", { class: "note" }, "Nothing: only comments or spelling differ."),
    answer.warnings.map((text) => h("p", { class: "note" }, `Note: ${text}`)),
  ];
}

function badDraft(problems, text) {
  const columns = [
    { label: "Line", head: true, class: "nowrap", cell: (r) => h("button", { type: "button", class: "quiet", on: { click: () => goTo(text, r.line) } }, `line ${r.line}, column ${r.column}`) },
    ...PROBLEM.slice(1),
  ];
  return [h("p", { class: "verdict" }, mark(`${problems.length} ${problems.length === 1 ? "problem" : "problems"}`, "bad")), tableOf({ caption: "Problems of the draft", columns }, problems)];
}

/** Select a line of the draft. */
function goTo(text, line) {
  const lines = text.value.split("\n");
  const start = lines.slice(0, line - 1).reduce((sum, one) => sum + one.length + 1, 0);
  text.focus();
  text.setSelectionRange(start, start + (lines[line - 1]?.length ?? 0));
  text.scrollTop = Math.max(0, (text.scrollHeight / lines.length) * (line - 4));
}
