"use strict";
// Text as elements, and what a summary's tokens earned and cost as colours.
// All text from files becomes text nodes; nothing is ever parsed as HTML.

function make(tag, name, ...children) {
  const node = document.createElement(tag);
  if (name) node.className = name;
  node.append(...children);
  return node;
}

// Somebody's text: its direction is its own and ends with it.
function prose(tag, name, text) {
  const node = make(tag, name, text);
  node.dir = "auto";
  return node;
}

function number(value, digits = 2, signed = false) {
  if (value === null || value === undefined || Number.isNaN(value)) return "\u2013";
  return (value < 0 ? "\u2212" : signed ? "+" : "") + Math.abs(value).toFixed(digits);
}

const MEASURES = {
  kl: ["KL", "nats"],
  reward: ["reward", "reward-model units"],
  value: ["value", "reward-model units"],
  logprob: ["log-prob", "nats"],
};

const UNPACKS = "DecompressionStream" in window;

class TokenValues {
  constructor({ chunk, steps, limits }) {
    Object.assign(this, { chunk, steps, limits });
    this.measures = Object.keys(MEASURES).filter((name) => name in limits);
    this.unpacked = new Map();
  }

  // A promise of {pieces, values}, or of nothing where the summary was not traced.
  async of(post, column) {
    const place = Math.floor(post / this.chunk);
    if (!this.unpacked.has(place)) this.unpacked.set(place, this.#unpack(place));
    return (await this.unpacked.get(place)).get(`${post} ${column}`);
  }

  async #unpack(place) {
    const packed = document.getElementById(`tokens-${place}`);
    if (!packed || !UNPACKS) return new Map();
    const bytes = Uint8Array.from(atob(packed.textContent), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const traces = JSON.parse(await new Response(stream).text());
    return new Map(traces.map(([post, column, pieces, values]) => [`${post} ${column}`, { pieces, values }]));
  }

  #describe({ pieces, values }, place) {
    const parts = this.measures.filter((name) => values[name]).map((name) => {
      const value = values[name][place];
      return `${MEASURES[name][0]} ${number(value === null ? NaN : value / this.steps, 3, true)}`;
    });
    return `\u201c${pieces[place]}\u201d  ${parts.join(", ")}`;
  }

  // Put the token pieces in place of the text, coloured by `measure`.
  paint(text, readout, trace, whole, measure) {
    const values = trace.values[measure];
    if (!values) return;
    const limit = this.limits[measure] * this.steps;
    // The pieces may spell one thing more than the summary: the end-of-text token.
    const end = trace.pieces.slice(0, -1).join("") === whole ? trace.pieces.length - 1 : -1;
    let at = 0;
    const point = (place) => {
      spans[at].classList.remove("at");
      at = Math.max(0, Math.min(spans.length - 1, place));
      spans[at].classList.add("at");
      readout.textContent = this.#describe(trace, at);
    };
    const spans = trace.pieces.map((piece, place) => {
      const span = make("span", `${values[place] < 0 ? "neg" : "pos"}${place === end ? " eos" : ""}`, piece);
      const share = Math.min(1, Math.abs(values[place] ?? 0) / limit);
      span.style.setProperty("--heat", `${Math.round(75 * share)}%`);
      span.addEventListener("pointerenter", () => point(place));
      return span;
    });
    if (!spans.length) return;
    text.replaceChildren(...spans);
    text.classList.add("heat");
    text.tabIndex = 0;
    text.setAttribute("role", "group");
    text.setAttribute("aria-label", "Summary by token; arrow keys tell each token's values");
    text.addEventListener("focus", () => point(at));
    text.addEventListener("keydown", (event) => {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!by) return;
      event.preventDefault();
      point(at + by);
    });
  }

  // What the colours mean.
  legend(measure) {
    if (!UNPACKS) {
      return ["This browser cannot unpack the token values (Chrome 80, Firefox 113, Safari 16.4 or newer can); " +
        "texts, scores and filters work."];
    }
    if (!measure) return [];
    const limit = this.limits[measure];
    const half = measure === "logprob";
    return [make("span", "", number(-limit)), make("span", half ? "ramp half" : "ramp"),
      make("span", "", half ? "0" : number(limit, 2, true)), make("span", "", `${MEASURES[measure][1]} a token`)];
  }
}
