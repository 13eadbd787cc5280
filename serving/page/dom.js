// Small ways to make elements. What comes from users or the server only ever becomes text.

export function byId(id) {
  return document.getElementById(id);
}

/** An element; `more` holds properties, `parts` texts and elements. */
export function make(tag, more = {}, ...parts) {
  const element = Object.assign(document.createElement(tag), more);
  element.append(...parts.filter((part) => part !== null));
  return element;
}

/** A formula with its counts lowered. */
export function formulaParts(pairs) {
  return pairs.flatMap(([symbol, count]) =>
    count > 1 ? [symbol, make("sub", {}, String(count))] : [symbol]);
}

/** An SVG document as the source of an image, in which nothing runs. */
export function svgSource(svg) {
  return URL.createObjectURL(new Blob([svg], { type: "image/svg+xml" }));
}
