// The owner's page: progress, labelers, batches, disagreements, flagged items.

import { $, el, say } from "./dom.js";
import { call } from "./net.js";

const percent = (value) => `${Math.round(100 * value)} %`;
const number = (value) => value.toLocaleString("en");

function share(row) {
  if (!row) return el("td", { className: "muted" }, "–");
  return el("td", {}, percent(row.share), el("small", {}, `${percent(row.low)} to ${percent(row.high)}, n ${row.n}`));
}

function time(seconds) { return seconds === null ? "–" : seconds < 90 ? `${Math.round(seconds)} s` : `${(seconds / 60).toFixed(1)} min`; }

function tile(value, words, small = "") {
  return el("div", { className: "card tile" }, el("strong", {}, value), el("span", { className: "muted" }, words), small ? el("small", { className: "muted" }, el("br"), small) : null);
}

function table(names, rows) {
  return el("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": names[0] }, el("table", {}, el("thead", {}, el("tr", {}, ...names.map((name) => el("th", { scope: "col" }, name)))), el("tbody", {}, ...rows)));
}

function section(title, words, ...content) {
  return el("section", { className: "card stack", "aria-label": title }, el("div", {}, el("h2", {}, title), words ? el("p", { className: "muted" }, words) : null), ...content);
}

async function act(name, body) {
  try { draw(await call(name, body)); say(""); } catch (error) { say(error.message, true); }
}

function statusButtons({ worker, status, name }) {
  const button = (to, text) => el("button", { type: "button", "aria-label": `${text} ${name}`, onclick: () => act("owner/labeler", { worker, status: to }) }, text);
  return el("td", { className: "act" }, ...(status === "active" ? [button("paused", "Pause"), button("dropped", "Drop")] : [button("active", "Take back")]));
}

function labelerRow(row) {
  const marks = [row.held_out ? el("span", { className: "pill" }, "held out") : null, row.status !== "active" ? el("span", { className: "pill warn" }, row.status) : null];
  return el("tr", {}, el("td", {}, row.name, " ", ...marks, el("small", {}, row.worker)), el("td", {}, number(row.labels), el("small", {}, `${row.skips} skipped`)),
    el("td", {}, time(row.seconds), el("small", {}, row.idle === null ? "" : `${percent(row.idle)} idle`)), share(row.agreement), share(row.calibration), share(row.first), share(row.longer),
    el("td", { className: "words" }, ...row.signs.map((sign) => el("span", { className: "pill warn" }, sign))), statusButtons(row));
}

function described(entry, ...more) {
  return el("details", {}, el("summary", {}, `${entry.title || "Untitled"} `, el("span", { className: "pill" }, entry.reason ?? entry.kind ?? "item")),
    el("p", { className: "text" }, entry.post ?? ""),
    ...(entry.summaries ?? []).map((summary, place) => el("div", { className: "votes" }, el("h3", {}, `${place + 1}: ${summary.policy}`), el("p", { className: "text" }, summary.text.trim()))),
    el("div", { className: "votes" }, ...(entry.votes ?? []).map((vote) => el("div", {}, el("strong", {}, vote.worker), ` ${vote.says}`,
      ...vote.notes.filter(Boolean).map((note) => el("small", { className: "muted" }, ` “${note}”`))))), ...more);
}

function flaggedRow(entry) {
  return described(entry, el("div", { className: "actions" }, entry.held ? el("button", { type: "button", onclick: () => act("owner/item", { item: entry.item, held: false }) }, "Release it") : null,
    entry.held ? null : el("button", { type: "button", onclick: () => act("owner/item", { item: entry.item, held: true }) }, "Hold it back")));
}

function draw(data) {
  $("title").textContent = data.title;
  $("progress").replaceChildren(el("progress", { max: Math.max(data.wanted, 1), value: data.done, "aria-label": "Labels that are in" }));
  const left = Math.max(data.wanted - data.done, 0);
  const agreement = data.agreement;
  $("main").replaceChildren(
    el("div", { className: "tiles" }, tile(`${number(data.done)} of ${number(data.wanted)}`, "labels are in", `${number(data.items)} items`),
      tile(time(data.seconds), "a label (median)"), tile(data.seconds === null ? "–" : `${(left * data.seconds / 3600).toFixed(1)} h`, "of labeling left"),
      tile(agreement ? percent(agreement.share) : "–", "agreement", agreement ? `${percent(agreement.low)} to ${percent(agreement.high)} on ${agreement.n} items` : "no item has two labels yet")),
    section("Labelers", "Shares with 95 % intervals. Position: how often the summary shown first is chosen. Length: how often the longer one is.",
      data.labelers.length ? table(["Labeler", "Labels", "Time", "With others", "Known answers", "First chosen", "Longer chosen", "Look at this", "Change"], data.labelers.map(labelerRow))
        : el("p", {}, "There are none yet: add some with tldr-lab label links --add NAME.")),
    data.groups.length ? section("Held-out labelers", "Labelers who gave no training labels, beside the others.", table(["Group", "Labels", "With others", "Known answers", "Longer chosen"],
      data.groups.map((row) => el("tr", {}, el("td", {}, row.group), el("td", {}, number(row.labels)), share(row.agreement), share(row.calibration), share(row.longer))))) : "",
    data.batches.length ? section("Preference by batch", "The share that prefers the first policy. One pair in several batches shows drift.", table(["First", "Second", "Batch", "Preferred"],
      data.batches.map((row) => el("tr", {}, el("td", {}, row.first), el("td", {}, row.second), el("td", {}, row.batch), share(row))))) : "",
    section("Disagreements", data.disagreements.length ? "Items on which labelers agree least." : "None yet.", el("div", {}, ...data.disagreements.map((entry) => described(entry)))),
    data.flagged.length ? section("Flagged", "Items with personal data are held back until you release them. Disturbing ones carry a warning.", el("div", {}, ...data.flagged.map(flaggedRow))) : "");
}

$("refresh").addEventListener("click", () => act("owner", {}));
act("owner", {});
