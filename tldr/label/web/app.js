// The labeler's page: one item at a time.

import { $, el, say } from "./dom.js";
import { call, freshId, Outbox, patiently, store } from "./net.js";
import { interpretation, TASKS } from "./tasks.js";
import { Timer } from "./timer.js";

const view = { me: null, item: null, task: null, timer: new Timer(), outbox: null, busy: false, explained: false, covered: false };
const draftKey = () => `tldr-label-draft:${view.me.worker}:${view.item.ticket}`;

function saveDraft() {
  if (!view.item || !view.task || view.explained) return;
  store.set(draftKey(), { state: view.task.state(), waits: view.item.post === null, seconds: view.timer.seconds, idle: view.timer.idle });
}

function changed() {
  saveDraft();
  $("submit").disabled = view.busy || view.covered || !(view.explained || view.task?.ready());
}

function showProgress({ mine, done, wanted }) {
  const bar = el("progress", { max: Math.max(wanted, 1), value: done, "aria-label": `${done} of ${wanted} labels are in` });
  $("progress").replaceChildren(el("span", {}, `${mine} done`), bar);
  $("undo").disabled = mine === 0;
}

function postCard({ subreddit, title, text }) {
  return el("article", { className: "card post", "aria-label": "Post", tabIndex: 0 }, subreddit ? el("p", { className: "sub" }, `r/${subreddit.replace(/^r\//, "")}`) : null,
    title ? el("h2", {}, title) : null, el("div", { className: "text" }, text));
}

function show(item) {
  view.item = item;
  view.explained = false;
  view.covered = false;
  view.busy = false;
  if (!item) return showEnd();
  const draft = store.get(draftKey());
  view.timer = new Timer(draft?.seconds, draft?.idle);
  const waits = item.post === null;
  const state = item.previous ?? (draft && draft.waits === waits ? draft.state : null);
  view.task = (waits ? interpretation : TASKS[item.kind])(item, state, view.me, changed);
  if (item.warning && !draft) cover(item.warning); else draw();
  return undefined;
}

function draw() {
  const { item, task } = view;
  view.covered = false;
  const parts = [item.training ? el("p", { className: "banner" }, "Practice: this answer does not count, and you will see what we would have said.") : null, el("div", { id: "verdict" }),
    el("div", { className: task.alone ? "desk alone" : "desk" }, item.post ? postCard(item.post) : null, task.body)];
  $("main").replaceChildren(...parts.filter(Boolean));
  $("foot").hidden = false;
  $("foot-task").replaceChildren(...(task.foot ? [task.foot] : []));
  $("submit").replaceChildren(task.submit ?? "Submit", el("kbd", {}, task.first || task.texts ? "Ctrl ↵" : "↵"));
  window.scrollTo(0, 0);
  (task.first ?? $("main")).focus({ preventScroll: true });
  changed();
}

function cover(warning) {
  view.covered = true;
  $("main").replaceChildren(el("div", { className: "desk alone" }, el("section", { className: "card stack" }, el("h2", {}, "Before you read"), el("p", {}, warning),
    el("p", { className: "muted" }, "You may skip it; nobody will ask."),
    el("div", { className: "actions" }, el("button", { type: "button", className: "main", onclick: draw }, "Show it")))));
  $("foot").hidden = false;
  $("foot-task").replaceChildren();
  $("submit").replaceChildren("Submit");
  $("submit").disabled = true;
}

function showEnd() {
  view.task = null;
  $("foot").hidden = false;
  $("foot-task").replaceChildren();
  $("submit").disabled = true;
  $("main").replaceChildren(el("div", { className: "desk alone" }, el("section", { className: "card stack" }, el("h2", {}, "That is all for now. Thank you!"),
    el("p", { className: "muted" }, "There is nothing left for you to label. More may come later."),
    el("div", { className: "actions" }, el("button", { type: "button", onclick: advance }, "Look again")))));
}

function fail(error) {
  view.item = null;
  view.task = null;
  $("foot").hidden = true;
  $("main").replaceChildren(el("div", { className: "desk alone" }, el("section", { className: "card stack" }, el("h2", {}, "This does not work"), el("p", {}, error.message))));
}

async function advance() {
  try {
    const { item, progress } = await patiently("next", {}, (error) => say(`${error.message} Trying again.`, true));
    if ($("status").classList.contains("bad")) say("");
    showProgress(progress);
    show(item);
  } catch (error) {
    fail(error);
  }
}

async function send(name, more) {
  const { item, timer } = view;
  timer.touch();
  view.busy = true;
  $("submit").disabled = true;
  view.outbox.add(name, { ticket: item.ticket, answer_id: freshId(), seconds: timer.seconds, idle: timer.idle, ...more });
  store.remove(draftKey());
  const reply = await view.outbox.flush((text) => say(text, Boolean(text)));
  if (reply.refused) say(reply.refused, true); else say("");
  if ("explanation" in reply) return explain(reply);
  if (reply.refused) setTimeout(() => say(""), 8000);
  await advance();
  if (reply.refused) say(reply.refused, true);
  return undefined;
}

const KNOWN = {
  comparison: (known) => `We would say that ${known.confidence < 5 ? "A" : "B"} is better.`,
  ranking: (known) => `We would give the ranks ${known.rank.join(", ")} to the summaries as they were first shown.`,
  rating: (known) => `We would give coverage ${known.coverage}, accuracy ${known.accuracy}, coherence ${known.coherence}, overall ${known.overall}.`,
  demonstration: (known) => `One we like: ${known.summary}`,
};

function explain(reply) {
  view.explained = true;
  view.busy = false;
  const heading = reply.right === null ? "Thank you" : reply.right ? "We agree" : "We see it differently";
  $("verdict").replaceChildren(el("section", { className: `card explained stack ${reply.right === false ? "differs" : ""}` }, el("h2", {}, heading),
    el("p", {}, KNOWN[view.item.kind](reply.known)), reply.explanation ? el("p", {}, reply.explanation) : null));
  $("submit").replaceChildren("Next", el("kbd", {}, "↵"));
  window.scrollTo(0, 0);
  changed();
  $("submit").focus({ preventScroll: true });
}

async function submit() {
  if ($("submit").disabled || view.busy) return undefined;
  if (view.explained) return advance();
  if (!view.task.texts) return send("answer", { answer: view.task.answer() });
  view.busy = true;
  try {
    const { item } = await patiently("interpret", { ticket: view.item.ticket, texts: view.task.texts() }, (error) => say(error.message, true));
    say("");
    view.timer.touch();
    saveDraft();
    show(item);
  } catch (error) {
    say(error.message, true);
    await advance();
  }
  return undefined;
}

async function undo() {
  if (view.busy || $("undo").disabled) return;
  try {
    const { item, progress } = await call("undo");
    showProgress(progress);
    show(item);
    say("Your last answer is taken back. Change it and submit it again.");
    setTimeout(() => say(""), 6000);
  } catch (error) {
    say(error.message, true);
    setTimeout(() => say(""), 6000);
  }
}

function openSkip() {
  if (!view.item || view.explained || view.busy) return;
  for (const input of $("reasons").querySelectorAll("input")) input.checked = false;
  $("skip-note").value = "";
  $("confirm-skip").disabled = true;
  $("skip").showModal();
}

function confirmSkip() {
  const reason = $("reasons").querySelector("input:checked")?.value;
  if (!reason) return;
  $("skip").close();
  send("skip", { reason, note: $("skip-note").value });
}

function openHelp() { if (!$("help").open) $("help").showModal(); $("help").scrollTop = 0; }
function closeHelp() { $("help").close(); store.set(`tldr-label-read:${view.me.worker}`, true); $("main").focus(); }

function onKey(event) {
  view.timer.touch();
  const writing = event.target.matches("textarea, input:not([type=radio])");
  if (document.querySelector("dialog[open]") || !view.me || event.altKey || event.isComposing) return;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); submit(); return; }
  if (writing && event.key === "Escape") { event.target.blur(); $("main").focus({ preventScroll: true }); return; }
  if (writing || event.ctrlKey || event.metaKey) return;
  const letter = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (letter === "Enter") { if (!event.target.matches("button:not(.handle), summary, a")) { event.preventDefault(); submit(); } }
  else if (letter === "u") undo();
  else if (letter === "s") openSkip();
  else if (letter === "?") openHelp();
  else if (view.task && !view.covered && !view.explained && view.task.key({ key: letter })) event.preventDefault();
  else return;
  if (["u", "s", "?"].includes(letter)) event.preventDefault();
}

/** The instructions of the project, where it has its own: lines, "# " headings and "- " points. */
function ownInstructions(text) {
  const nodes = [];
  for (const line of text.split("\n").map((part) => part.trim()).filter(Boolean)) {
    if (line.startsWith("#")) nodes.push(el("h3", {}, line.replace(/^#+\s*/, "")));
    else if (line.startsWith("- ")) {
      if (nodes.at(-1)?.tagName !== "UL") nodes.push(el("ul"));
      nodes.at(-1).append(el("li", {}, line.slice(2)));
    } else nodes.push(el("p", {}, line));
  }
  $("help-text").replaceChildren(...nodes);
}

function prepare(me) {
  view.me = me;
  view.outbox = new Outbox(me.worker);
  $("title").textContent = me.title;
  document.title = me.title;
  if (me.instructions) ownInstructions(me.instructions);
  for (const section of $("help-text").querySelectorAll("[data-kind]")) section.hidden = !me.kinds.includes(section.dataset.kind);
  for (const part of $("help-text").querySelectorAll("[data-naive]")) part.hidden = !me.naive_first;
  $("reasons").append(...Object.entries(me.reasons).map(([value, words]) => el("label", {},
    el("input", { type: "radio", name: "reason", value, onchange: () => { $("confirm-skip").disabled = false; } }), words)));
}

async function beat() {
  if (!view.item || view.busy || view.explained || view.timer.quietFor > 60) return;
  try {
    await call("renew", { ticket: view.item.ticket });
  } catch (error) {
    if (!error.passing) { await advance(); say(error.message, true); }
  }
}

async function start() {
  for (const [id, act] of Object.entries({ submit, undo, "open-skip": openSkip, "close-skip": () => $("skip").close(), "confirm-skip": confirmSkip, "open-help": openHelp, "close-help": closeHelp })) $(id).addEventListener("click", act);
  document.addEventListener("keydown", onKey);
  for (const name of ["pointerdown", "wheel", "touchmove"]) document.addEventListener(name, () => view.timer.touch(), { passive: true });
  document.addEventListener("visibilitychange", () => { view.timer.touch(); saveDraft(); if (!document.hidden) beat(); });
  window.addEventListener("pagehide", () => { view.timer.touch(); saveDraft(); });
  window.addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
  window.addEventListener("hashchange", () => location.reload());
  setInterval(beat, 60000);
  try {
    prepare(await patiently("me", {}, (error) => say(`${error.message} Trying again.`, true)));
  } catch (error) {
    return fail(error);
  }
  say("");
  if (!store.get(`tldr-label-read:${view.me.worker}`)) openHelp();
  await view.outbox.flush((text) => say(text, Boolean(text)));
  return advance();
}

start();
