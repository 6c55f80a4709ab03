// The four tasks. Each makes its part of the page and knows its answer about the order shown.
//
// A task gets (item, state, me, changed) and returns { body, foot, ready(), answer(), state(), key(event), submit }.
// `state` is what a reload restores; `changed` is called whenever it differs.

import { dot, el, note } from "./dom.js";
import { call } from "./net.js";

const LETTERS = "ABCDEFGHI";
const STRENGTHS = ["certainly", "clearly", "somewhat", "barely"];

function summaryCard(text, letter, side, ...more) {
  return el("section", { className: `card summary ${side}`, "aria-label": `Summary ${letter}` },
    el("div", { className: "head" }, el("h3", { className: "badge" }, letter), ...more.slice(0, 1)),
    el("p", { className: "text" }, text), ...more.slice(1));
}

/** What each summary alone says, before the post is shown. */
export function interpretation(item, state, me, changed) {
  const boxes = item.summaries.map((_, place) => el("textarea", {
    rows: 2, maxLength: 2000, value: state?.texts?.[place] ?? "", oninput: changed, placeholder: "In a few words",
    "aria-label": `What does summary ${LETTERS[place]} say?`,
  }));
  const cards = item.summaries.map((text, place) => summaryCard(text, LETTERS[place], place ? "side-b" : "side-a", null,
    el("p", { className: "sub" }, "What happened, from this text alone?"), boxes[place]));
  return {
    alone: true, submit: "Show the post",
    body: el("div", { className: "stack" }, el("p", { className: "banner" }, "First read the summaries without the post. Write what you understand from each."), ...cards),
    ready: () => boxes.every((box) => box.value.trim()),
    texts: () => boxes.map((box) => box.value),
    state: () => ({ texts: boxes.map((box) => box.value) }),
    key: () => false,
  };
}

function comparison(item, state, me, changed) {
  let chosen = state?.confidence ?? null;
  const notes = item.summaries.map((_, place) => note(`summary ${LETTERS[place]}`, state?.notes?.[place] ?? "", "NM"[place], changed));
  const cards = item.summaries.map((text, place) => summaryCard(text, LETTERS[place], place ? "side-b" : "side-a", notes[place].button,
    item.interpretations ? el("p", { className: "sub" }, `You read: ${item.interpretations[place]}`) : null, notes[place].box));
  const words = (value) => value < 5 ? `A is ${STRENGTHS[value - 1]} better` : `B is ${STRENGTHS[9 - value]} better`;
  const now = el("span", { className: "now" });
  const dots = [1, 2, 3, 4, 6, 7, 8, 9].map((value) => dot("confidence", value, words(value), value < 5 ? "side-a" : "side-b", () => choose(value)));
  const foot = el("fieldset", { className: "scale" }, el("legend", { className: "unseen" }, "Which summary is better?"),
    el("div", { className: "ends", "aria-hidden": "true" }, el("span", {}, "A certainly"), now, el("span", {}, "B certainly")),
    el("div", { className: "row" }, ...dots.slice(0, 4), el("span", { className: "gap" }), ...dots.slice(4)));
  function choose(value, quiet = false) {
    chosen = value;
    for (const each of dots) each.firstChild.checked = Number(each.firstChild.value) === value;
    cards.forEach((card, place) => card.classList.toggle("chosen", value !== null && (value > 5) === Boolean(place)));
    now.textContent = value === null ? "Which is better?" : words(value);
    if (!quiet) changed();
  }
  choose(chosen, true);
  const answer = () => ({ confidence: chosen, notes: notes.map((each) => each.box.value) });
  return {
    body: el("div", { className: "stack" }, ...cards), foot, answer, state: answer, ready: () => chosen !== null,
    key(event) {
      if (/^[1-46-9]$/.test(event.key)) choose(Number(event.key));
      else if (event.key === "ArrowLeft") choose(chosen === null ? 4 : Math.max(1, chosen === 6 ? 4 : chosen - 1));
      else if (event.key === "ArrowRight") choose(chosen === null ? 6 : Math.min(9, chosen === 4 ? 6 : chosen + 1));
      else if (event.key === "n" || event.key === "m") notes[event.key === "n" ? 0 : 1].open();
      else return false;
      return true;
    },
  };
}

/** Ranks of the places shown, 1 = best, from an order of them and whether each ties with the one above. */
export function ranks(order, ties) {
  const rank = [];
  order.forEach((place, index) => { rank[place] = index && ties[index] ? rank[order[index - 1]] : index + 1; });
  return rank;
}

function ranking(item, state, me, changed) {
  const count = item.summaries.length;
  let order = state?.order ?? item.summaries.map((_, place) => place);
  let ties = state?.ties ?? order.map(() => false);
  if (state?.rank) {
    order = order.sort((a, b) => state.rank[a] - state.rank[b]);
    ties = order.map((place, index) => index > 0 && state.rank[place] === state.rank[order[index - 1]]);
  }
  let sure = state?.sure ?? Boolean(state?.rank);
  let focus = 0;
  const list = el("ol", { className: "rank" });
  const confirm = el("button", { type: "button", onclick: () => { sure = true; draw(); changed(); } }, "This order is right");
  const notes = item.summaries.map((_, place) => note(`summary ${LETTERS[place]}`, state?.notes?.[place] ?? "", "", changed));
  function move(from, to) {
    if (to < 0 || to >= count) return;
    order.splice(to, 0, ...order.splice(from, 1));
    ties = order.map(() => false).map((_, index) => index > 0 && ties[index] && index !== from && index !== to && index !== to + 1 && index !== from + 1);
    sure = true;
    focus = to;
    draw(true);
    changed();
  }
  function tie(index) {
    if (index < 1 || index >= count) return;
    ties[index] = !ties[index];
    sure = true;
    draw(true);
    changed();
  }
  function line(place, index) {
    const letter = LETTERS[place];
    const rank = ranks(order, ties)[place];
    const handle = el("button", { type: "button", className: "handle", "aria-label": `Summary ${letter}, rank ${rank} of ${count}; arrow keys move it`, onfocus: () => { focus = index; }, onpointerdown: (event) => drag(event, index) },
      el("span", { className: "badge" }, String(rank)), el("i", { "aria-hidden": "true" }, "⠿"));
    const button = (text, label, to) => el("button", { type: "button", "aria-label": `Move summary ${letter} ${label}`, disabled: to < 0 || to >= count, onclick: () => move(index, to) }, text);
    const card = el("div", { className: "card" }, handle,
      el("div", { className: "stack" }, el("p", { className: "text" }, item.summaries[place]), notes[place].button, notes[place].box),
      el("div", { className: "moves" }, button("↑", "up", index - 1), button("↓", "down", index + 1)));
    const between = index === 0 ? null : el("button", { type: "button", className: "tie", "aria-pressed": String(ties[index]), onclick: () => tie(index) }, ties[index] ? "equally good" : "better than ↓  (mark as equal)");
    return el("li", {}, between, card);
  }
  function draw(refocus = false) {
    list.replaceChildren(...order.map(line));
    confirm.hidden = sure;
    if (refocus) list.querySelectorAll(".handle")[focus].focus();
  }
  function drag(event, index) {
    event.preventDefault();
    const handle = event.currentTarget;
    handle.setPointerCapture(event.pointerId);
    const card = handle.closest(".card");
    const start = event.clientY;
    const middles = [...list.children].map((node) => { const box = node.lastChild.getBoundingClientRect(); return box.top + box.height / 2; });
    card.classList.add("held");
    const shift = (moved) => { card.style.transform = `translateY(${moved.clientY - start}px)`; };
    const drop = (end) => {
      handle.removeEventListener("pointermove", shift);
      card.classList.remove("held");
      card.style.transform = "";
      const middle = middles[index] + end.clientY - start;
      const above = middles.filter((other, place) => place !== index && other < middle).length;
      if (end.type === "pointerup" && above !== index) move(index, above); else handle.focus();
    };
    handle.addEventListener("pointermove", shift);
    handle.addEventListener("pointerup", drop, { once: true });
    handle.addEventListener("pointercancel", drop, { once: true });
  }
  draw();
  return {
    body: el("div", { className: "stack" }, el("p", { className: "sub" }, "The best on top. Drag by the handle, or use the arrows."), list, confirm),
    ready: () => sure,
    answer: () => ({ rank: ranks(order, ties), notes: notes.map((each) => each.box.value) }),
    state: () => ({ order, ties, sure, notes: notes.map((each) => each.box.value) }),
    key(event) {
      const handles = list.querySelectorAll(".handle");
      if (event.key === "ArrowUp") move(focus, focus - 1);
      else if (event.key === "ArrowDown") move(focus, focus + 1);
      else if (event.key === "=") tie(focus);
      else if (event.key === "j" || event.key === "k") handles[Math.min(Math.max(focus + (event.key === "j" ? 1 : -1), 0), count - 1)].focus();
      else return false;
      return true;
    },
  };
}

const AXES = {
  coverage: ["Coverage", "How much of what matters is in it?", "misses the point", "nothing missing"],
  accuracy: ["Accuracy", "Does the post say all of it?", "mostly wrong", "all true"],
  coherence: ["Coherence", "Can it be understood on its own?", "cannot be followed", "reads well"],
  overall: ["Overall", "How well does it stand in for the post?", "of no use", "could not be better"],
};

function rating(item, state, me, changed) {
  const names = Object.keys(AXES);
  const given = Object.fromEntries(names.map((axis) => [axis, state?.[axis] ?? null]));
  let focus = Math.max(0, names.findIndex((axis) => given[axis] === null));
  const text = note("the summary", state?.notes?.[0] ?? "", "N", changed);
  const fields = names.map((axis, index) => {
    const [title, question, low, high] = AXES[axis];
    const dots = [1, 2, 3, 4, 5, 6, 7].map((value) => dot(axis, value, `${title} ${value} of 7`, "", () => rate(axis, value)));
    for (const each of dots) each.firstChild.addEventListener("focus", () => { focus = index; });
    return el("fieldset", { className: "axis" }, el("legend", {}, title, el("small", {}, question)),
      el("div", { className: "row" }, ...dots), el("div", { className: "ends" }, el("span", {}, low), el("span", {}, high)));
  });
  const inputs = (axis) => [...fields[names.indexOf(axis)].querySelectorAll("input")];
  function rate(axis, value) {
    given[axis] = value;
    for (const input of inputs(axis)) input.checked = Number(input.value) === value;
    changed();
  }
  function go(index) {
    focus = Math.min(Math.max(index, 0), names.length - 1);
    const all = inputs(names[focus]);
    (all.find((input) => input.checked) ?? all[0]).focus();
  }
  for (const axis of names) if (given[axis] !== null) for (const input of inputs(axis)) input.checked = Number(input.value) === given[axis];
  const answer = () => ({ ...given, notes: [text.box.value] });
  return {
    body: el("div", { className: "stack" }, el("section", { className: "card summary", "aria-label": "Summary" },
      el("div", { className: "head" }, el("h3", {}, "Summary"), text.button), el("p", { className: "text" }, item.summaries[0]), text.box),
      el("div", { className: "card axes" }, ...fields)),
    ready: () => names.every((axis) => given[axis] !== null), answer, state: answer,
    key(event) {
      if (/^[1-7]$/.test(event.key)) { rate(names[focus], Number(event.key)); go(focus + 1); }
      else if (event.key === "ArrowDown" || event.key === "ArrowUp") go(focus + (event.key === "ArrowDown" ? 1 : -1));
      else if (event.key === "n") text.open();
      else return false;
      return true;
    },
  };
}

function demonstration(item, state, me, changed) {
  const [least, most, unit] = me.length;
  let count = 0;
  let asked = 0;
  const number = el("strong", {});
  const hint = el("span", {});
  const fill = el("i");
  const mark = el("b");
  const meter = el("div", { className: "meter", "aria-hidden": "true" }, fill, mark);
  const box = el("textarea", { id: "summary", rows: 6, maxLength: 4000, value: state?.summary ?? "", placeholder: "What should a reader know?", oninput: () => { recount(); changed(); } });
  mark.style.left = `${100 * least / (most * 1.25)}%`;
  function show(value) {
    count = value;
    number.textContent = `${count} ${unit}`;
    hint.textContent = count < least ? `${least - count} more to go` : count > most ? `${count - most} too many` : "a good length";
    fill.style.width = `${Math.min(100, 100 * count / (most * 1.25))}%`;
    meter.classList.toggle("off", count > most);
  }
  const words = () => box.value.trim() ? box.value.trim().split(/\s+/).length : 0;
  async function recount() {
    const mine = ++asked;
    if (unit === "words") return show(words());
    await new Promise((done) => setTimeout(done, 150));
    if (mine !== asked) return undefined;
    const reply = await call("count", { text: box.value }).catch(() => null);
    if (mine === asked && reply) { show(reply.count); changed(); }
    return undefined;
  }
  show(0);
  recount();
  const answer = () => ({ summary: box.value });
  return {
    body: el("div", { className: "card stack" }, el("label", { htmlFor: "summary" }, el("h3", {}, "Your summary")),
      el("div", { className: "count" }, el("span", {}, number, ` of ${least} to ${most}`), hint), meter, box),
    ready: () => count >= least && count <= most, answer, state: answer, first: box, key: () => false,
  };
}

export const TASKS = { comparison, ranking, rating, demonstration };
