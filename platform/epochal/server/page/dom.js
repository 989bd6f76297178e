// Building and changing the document. Text only ever goes in as text: nothing here parses HTML.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/** An element; attributes that are null, undefined or false are left out, `on...` ones are listeners. */
export function el(tag, attributes = {}, ...children) {
  return furnish(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return furnish(document.createElementNS(SVG, tag), attributes, children);
}

function furnish(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

/** Sets the text where it differs, so that a selection and a screen reader are not disturbed once a second. */
export function setText(node, text) {
  const wanted = String(text ?? "");
  if (node.textContent !== wanted) node.textContent = wanted;
}

export function setAttribute(node, name, value) {
  if (value === null || value === undefined || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value === true ? "" : value);
}

/** A link that only ever leads to a web page. */
export function setLink(node, address) {
  const isWeb = /^https?:\/\//.test(address ?? "");
  setAttribute(node, "href", isWeb ? address : null);
  node.hidden = !isWeb;
}

/** Makes the children of `parent` match `items`, keeping the elements of those that stay.
 *  `make()` gives `{node, update(item)}`. */
export function keep(parent, items, key, make) {
  const rows = (parent.keptRows ??= new Map());
  const wanted = new Set(items.map(key));
  for (const [name, row] of rows) {
    if (wanted.has(name)) continue;
    row.node.remove();
    rows.delete(name);
  }
  items.forEach((item, index) => {
    const name = key(item);
    if (!rows.has(name)) rows.set(name, make(item));
    const row = rows.get(name);
    row.update(item);
    const there = parent.children[index] ?? null;
    if (there !== row.node) parent.insertBefore(row.node, there);
  });
}

export function clear(parent) {
  parent.keptRows?.clear();
  parent.replaceChildren();
}

export function cell(label, className, ...children) {
  return el("td", { role: "cell", "data-label": label, class: className }, ...children);
}
