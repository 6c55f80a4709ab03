"use strict";
// One list of posts, of which only the visible rows exist; one post shown with its summaries.
(() => {
  const ROW = 56; // px, as in the style
  const DEBOUNCE = 80; // ms
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const { posts, policies, scorers } = data;
  const tokens = new TokenValues(data.tokens);
  const size = posts.id.length;
  const verdicts = new Map();
  for (const one of data.verdicts) verdicts.set(one.post, [...(verdicts.get(one.post) ?? []), one]);
  const opened = policies.flatMap((policy, index) => (policy.shown ? [index] : []));
  const START = {
    post: 0, q: "", subreddit: "", policy: opened.at(-1) ?? 0, scorer: scorers[0] ?? "", sort: "",
    loses: false, unstopped: false, disagrees: false, heat: tokens.measures[0] ?? "", columns: opened,
  };
  let state = { ...START };
  let visible = [];

  // Score minus the reference's; the reference itself is 0.
  function margin(column, post, scorer = state.scorer) {
    if (column < 0) return 0;
    const { scores } = policies[column];
    const own = scores[scorer]?.[post];
    const other = scores[`${scorer}_reference`]?.[post];
    return typeof own === "number" && typeof other === "number" ? own - other : NaN;
  }

  // Whether the scorer ranks the two the other way round than the judge did.
  function disagrees(verdict) {
    if (verdict.axis !== "overall" || typeof verdict.winner !== "number" || verdict.columns.includes(null)) return false;
    const [winner, loser] = [verdict.columns[verdict.winner], verdict.columns[1 - verdict.winner]];
    return margin(winner, verdict.post) < margin(loser, verdict.post);
  }

  // ---- Which posts, in which order

  let hay = null;
  function haystack() {
    hay ??= posts.id.map((id, post) =>
      [id, posts.subreddit[post], posts.title[post], posts.post[post], posts.reference[post],
        ...policies.map((policy) => policy.text[post])].join("\n").toLowerCase());
    return hay;
  }

  function select() {
    const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
    const texts = words.length ? haystack() : null;
    const policy = policies[state.policy];
    const keep = (post) =>
      (!state.subreddit || posts.subreddit[post] === state.subreddit) &&
      (!state.loses || margin(state.policy, post) < 0) &&
      (!state.unstopped || policy.stopped[post] === 0) &&
      (!state.disagrees || (verdicts.get(post) ?? []).some(
        (one) => one.columns.includes(state.policy) && disagrees(one))) &&
      words.every((word) => texts[post].includes(word));
    const found = posts.id.map((_, post) => post).filter(keep);
    if (!state.sort) return found;
    const [key, sign] = state.sort[0] === "-" ? [state.sort.slice(1), -1] : [state.sort, 1];
    const value = key === "margin" ? (post) => margin(state.policy, post) : (post) => policy[key][post] ?? NaN;
    const values = posts.id.map((_, post) => value(post));
    const missing = (post) => Number(Number.isNaN(values[post]));
    return found.sort((a, b) => missing(a) - missing(b) || sign * (values[a] - values[b]) || a - b);
  }

  // ---- The list

  const list = byId("list");
  const rows = byId("rows");

  function drawRows() {
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 4);
    const last = Math.min(visible.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 4);
    rows.replaceChildren(...visible.slice(first, last).map((post, offset) => {
      const gap = margin(state.policy, post);
      const row = make("div", "row",
        prose("span", "", posts.title[post] || posts.id[post]),
        make("span", `num ${gap < 0 ? "down" : "up"}`, Number.isNaN(gap) ? "" : number(gap, 2, true)),
        prose("span", "sub", [posts.subreddit[post], posts.id[post]].filter(Boolean).join(" \u00b7 ")));
      row.id = `row-${post}`;
      row.style.top = `${(first + offset) * ROW}px`;
      row.setAttribute("role", "option");
      row.setAttribute("aria-selected", String(post === state.post));
      row.setAttribute("aria-setsize", String(visible.length));
      row.setAttribute("aria-posinset", String(first + offset + 1));
      row.addEventListener("click", () => go(post));
      return row;
    }));
    list.setAttribute("aria-activedescendant", `row-${state.post}`);
  }

  function reveal() {
    const top = visible.indexOf(state.post) * ROW;
    if (top < 0) return;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
  }

  // ---- One post

  const detail = byId("detail");

  function scoreTable(column, post) {
    const { scores } = policies[column];
    const body = make("tbody");
    for (const scorer of scorers.filter((name) => typeof scores[name]?.[post] === "number")) {
      const gap = margin(column, post, scorer);
      const share = scores[`${scorer}_preference`]?.[post];
      body.append(make("tr", "", make("th", "", scorer), make("td", "num", number(scores[scorer][post])),
        make("td", "num", number(scores[`${scorer}_reference`]?.[post])),
        make("td", `num ${gap < 0 ? "down" : "up"}`, number(gap, 2, true)),
        make("td", "num", typeof share === "number" ? `${Math.round(100 * share)} %` : "")));
    }
    if (!body.children.length) return "";
    const names = ["", "score", "ref.", "diff.", "pref."];
    return make("table", "", make("thead", "", make("tr", "", ...names.map((name) => make("th", "", name)))), body);
  }

  function facts(column, post) {
    const policy = policies[column];
    const told = scorers.flatMap((name) => [name, `${name}_reference`, `${name}_preference`]);
    const others = Object.keys(policy.scores).filter(
      (name) => !told.includes(name) && typeof policy.scores[name][post] === "number");
    const parts = others.map((name) => `${name.replaceAll("_", " ")} ${number(policy.scores[name][post])}`);
    if (policy.tokens[post] !== null) parts.push(`${policy.tokens[post]} tokens`);
    if (policy.kl[post] !== null) parts.push(`KL from SFT ${number(policy.kl[post])} nats`);
    const line = make("p", "facts", ...parts.map((part) => make("span", "", part)));
    if (policy.stopped[post] === 0) line.append(make("span", "flag", "did not stop"));
    return line;
  }

  function card(column, post) {
    const policy = policies[column];
    const whole = policy.text[post];
    const head = prose("h3", "", policy.label);
    const node = make("article", `card${column === state.policy ? " focus" : ""}`, head);
    if (whole === null) {
      node.append(make("p", "facts", "No summary of this post."));
      return node;
    }
    const text = prose("div", "text", whole);
    node.append(text);
    if (state.heat && policy.traced && UNPACKS) {
      const readout = make("p", "readout", "Point at a token for its values.");
      readout.setAttribute("aria-live", "polite");
      node.append(readout);
      tokens.of(post, column).then((trace) => {
        if (trace) tokens.paint(text, readout, trace, whole, state.heat);
        else readout.textContent = "The tokens of this summary were not traced.";
      });
    }
    node.append(scoreTable(column, post), facts(column, post));
    return node;
  }

  function verdictTable(post) {
    const lines = (verdicts.get(post) ?? []).map((one) => {
      const winner = typeof one.winner === "number" ? `prefers ${one.policies[one.winner]}` : one.winner;
      const raw = one.raw === null ? "" : make("details", "", make("summary", "", "answer"), prose("div", "raw", one.raw));
      return make("tr", "", prose("td", "", one.judge), prose("td", "", one.axis), prose("td", "", one.policies.join(" / ")),
        prose("td", "", one.policies[one.first]),
        make("td", "", prose("span", "", winner), disagrees(one) ? make("span", "flag", "scorer disagrees") : ""),
        make("td", "", raw));
    });
    if (!lines.length) return "";
    const names = ["judge", "axis", "policies", "shown first", "verdict", ""];
    return make("section", "judged", make("h3", "", "Judge verdicts"), make("table", "verdicts",
      make("thead", "", make("tr", "", ...names.map((name) => make("th", "", name)))), make("tbody", "", ...lines)));
  }

  function drawPost() {
    const post = state.post;
    if (!visible.length) {
      const clear = make("button", "button", "Clear the filters");
      clear.addEventListener("click", () => update({ ...START, columns: state.columns }));
      detail.replaceChildren(make("p", "", "No post matches."), clear);
      return;
    }
    const reference = make("article", "card reference", make("h3", "", "reference"),
      prose("div", "text", posts.reference[post] ?? "No reference here."));
    detail.replaceChildren(
      prose("h2", "", posts.title[post] || posts.id[post]),
      prose("p", "where", [posts.subreddit[post], posts.id[post]].filter(Boolean).join(" \u00b7 ")),
      prose("div", "text post", posts.post[post] ?? "The post's text is not at hand."),
      make("div", "cards", reference, ...state.columns.map((column) => card(column, post))),
      verdictTable(post));
  }

  // ---- State, its address, its controls

  const CHECKS = ["loses", "unstopped", "disagrees"].filter(byId);
  const labelled = (label) => policies.findIndex((policy) => policy.label === label);

  function toHash() {
    const parts = new URLSearchParams();
    parts.set("post", posts.id[state.post] ?? "");
    for (const name of ["q", "subreddit", "scorer", "sort", "heat"]) {
      if (state[name] !== START[name]) parts.set(name, state[name]);
    }
    if (state.policy !== START.policy) parts.set("policy", policies[state.policy].label);
    for (const name of CHECKS) if (state[name]) parts.set(name, "1");
    if (String(state.columns) !== String(opened)) {
      parts.set("columns", JSON.stringify(state.columns.map((column) => policies[column].label)));
    }
    return `#${parts}`;
  }

  function fromHash() {
    const parts = new URLSearchParams(location.hash.slice(1));
    const found = { ...START };
    for (const name of ["q", "subreddit", "scorer", "sort", "heat"]) found[name] = parts.get(name) ?? START[name];
    if (!scorers.includes(found.scorer)) found.scorer = START.scorer;
    if (!tokens.measures.includes(found.heat)) found.heat = parts.get("heat") === "" ? "" : START.heat;
    if (![...byId("sort").options].some((one) => one.value === found.sort)) found.sort = "";
    for (const name of CHECKS) found[name] = parts.get(name) === "1";
    found.post = Math.max(0, posts.id.indexOf(parts.get("post")));
    if (labelled(parts.get("policy")) >= 0) found.policy = labelled(parts.get("policy"));
    try {
      found.columns = JSON.parse(parts.get("columns")).map(labelled).filter((column) => column >= 0);
    } catch { /* An address without columns, or a broken one: those open at first. */ }
    return found;
  }

  function options(select, pairs) {
    select?.append(...pairs.map(([value, text]) => {
      const option = make("option", "", text);
      option.value = value;
      return option;
    }));
  }

  function setControls() {
    for (const name of ["q", "subreddit", "policy", "scorer", "sort", "heat"]) {
      const control = byId(name);
      if (control && control.value !== String(state[name])) control.value = String(state[name]);
    }
    for (const name of CHECKS) byId(name).checked = state[name];
    byId("columns").querySelectorAll("input").forEach((box, column) => { box.checked = state.columns.includes(column); });
    byId("picker").firstElementChild.textContent = `Columns (${state.columns.length} of ${policies.length})`;
  }

  function update(change, remember = true) {
    const begun = performance.now();
    state = { ...state, ...change };
    visible = select();
    rows.style.height = `${visible.length * ROW}px`;
    // Another choice or order begins at its top, other changes stay with the post.
    const afresh = !("post" in change) && ["q", "subreddit", "sort", ...CHECKS].some((name) => name in change);
    if (afresh || !visible.includes(state.post)) state.post = visible[0] ?? 0;
    byId("count").textContent = `${visible.length.toLocaleString("en")} of ${size.toLocaleString("en")} posts` +
      (state.scorer ? `; ${state.scorer}: ${policies[state.policy].label} minus reference` : "");
    setControls();
    reveal();
    drawRows();
    if (byId("legend")) byId("legend").replaceChildren(...tokens.legend(state.heat));
    drawPost();
    if (remember) history.replaceState(null, "", toHash());
    document.body.dataset.filtered = (list.offsetHeight && performance.now() - begun).toFixed(1); // Layout included.
  }

  function go(post) {
    if (post === undefined) return;
    state.post = post;
    reveal();
    drawRows();
    drawPost();
    detail.scrollTop = 0;
    history.replaceState(null, "", toHash());
  }

  function step(by) {
    go(visible[visible.indexOf(state.post) + by]);
  }

  function listen() {
    let timer = 0;
    byId("q").addEventListener("input", (event) => {
      clearTimeout(timer);
      timer = setTimeout(() => update({ q: event.target.value }), DEBOUNCE);
    });
    for (const name of ["subreddit", "scorer", "sort", "heat"]) {
      byId(name)?.addEventListener("change", (event) => update({ [name]: event.target.value }));
    }
    byId("policy").addEventListener("change", (event) => update({ policy: Number(event.target.value) }));
    for (const name of CHECKS) byId(name).addEventListener("change", (event) => update({ [name]: event.target.checked }));
    byId("columns").addEventListener("change", () => {
      const boxes = [...byId("columns").querySelectorAll("input")];
      update({ columns: boxes.flatMap((box, column) => (box.checked ? [column] : [])) });
    });
    byId("controls").addEventListener("submit", (event) => event.preventDefault());
    list.addEventListener("scroll", drawRows, { passive: true });
    list.addEventListener("keydown", (event) => {
      const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (by) { event.preventDefault(); step(by); }
    });
    document.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.target.closest?.("input, select, textarea")) {
        if (event.key === "Escape") event.target.blur();
        return;
      }
      if (event.key === "j") step(1);
      else if (event.key === "k") step(-1);
      else if (event.key === "/") { event.preventDefault(); byId("q").focus(); }
      else if (event.key === "h" && tokens.measures.length) {
        const names = [...tokens.measures, ""];
        update({ heat: names[(names.indexOf(state.heat) + 1) % names.length] });
      }
    });
    window.addEventListener("resize", drawRows);
    window.addEventListener("hashchange", () => update(fromHash(), false));
  }

  options(byId("policy"), policies.map((policy, index) => [index, policy.label]));
  options(byId("scorer"), scorers.map((name) => [name, name]));
  options(byId("subreddit"), [...new Set(posts.subreddit)].filter(Boolean).sort().map((name) => [name, name]));
  options(byId("heat"), [...tokens.measures.map((name) => [name, MEASURES[name][0]]), ["", "none"]]);
  byId("columns").append(...policies.map((policy) => {
    const box = make("input");
    box.type = "checkbox";
    return make("label", "", box, prose("span", "", policy.label));
  }));
  byId("notes").append(...data.notes.map((note) => make("li", "", ` ${note}`)));
  listen();
  update(fromHash(), false);
  document.body.dataset.ready = performance.now().toFixed(1); // ms since the page was opened
})();
