// Everything shown is made here as text, never as HTML: posts and notes are not trusted.

/** An element with properties, listeners (onclick: ...) and children; a text child stays text. */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node && !name.includes("-")) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export const $ = (id) => document.getElementById(id);

/** Tell the labeler something; "" takes it away. */
export function say(text, bad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}

/** A radio button drawn as a dot or a box. */
export function dot(name, value, label, side, onchange) {
  const input = el("input", { type: "radio", name, value: String(value), "aria-label": label, onchange });
  return el("label", { className: `dot ${side}` }, input, el("span", { "aria-hidden": "true" }, String(value)));
}

/** A button that opens a note, and the note's box. */
export function note(name, text, key, onchange) {
  const box = el("textarea", { rows: 2, maxLength: 2000, value: text, "aria-label": `Note on ${name}`, oninput: onchange });
  box.hidden = !text;
  const button = el("button", { type: "button", className: "quiet note-button", onclick: () => open() }, "Note", key ? el("kbd", {}, key) : null);
  button.hidden = Boolean(text);
  const open = () => { box.hidden = false; button.hidden = true; box.focus(); };
  return { box, button, open };
}
