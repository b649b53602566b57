// Runs in the browser: what is wrong with each picture of the page, as it is really drawn.
const TOLERANCE = 0.75; // of a pixel
const SMALLEST = 8;
const READABLE = 4.5; // the contrast that WCAG 2 asks for

function luminance(colour) {
  const parts = colour.match(/[\d.]+/g).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
}

function contrast(a, b) {
  const [high, low] = [luminance(a), luminance(b)].sort((x, y) => y - x);
  return (high + 0.05) / (low + 0.05);
}

function overlap(a, b) {
  return Math.min(a.right, b.right) - Math.max(a.left, b.left) > TOLERANCE &&
    Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > TOLERANCE;
}

// The box of a text's letters: a line's box also has the room above and below them.
function box_of(text) {
  const box = text.getBBox(), size = parseFloat(text.getAttribute("font-size"));
  const base = parseFloat(text.getAttribute("y"));
  return {left: box.x, right: box.x + box.width, top: base - 0.73 * size, bottom: base,
          text: text.textContent, size: size, node: text};
}

function check(svg) {
  const problems = [], [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
  const scale = svg.getScreenCTM().a;
  const texts = [...svg.querySelectorAll("text")].map(box_of);
  const rects = [...svg.querySelectorAll("rect")].map(node => {
    const style = getComputedStyle(node), box = node.getBBox();
    return {left: box.x, right: box.x + box.width, top: box.y, bottom: box.y + box.height,
            fill: style.fill, node: node};
  });
  for (const shape of svg.querySelectorAll("rect, text, path")) {
    const b = shape.getBBox();
    if (b.x < -TOLERANCE || b.y < -TOLERANCE || b.x + b.width > width + TOLERANCE ||
        b.y + b.height > height + TOLERANCE)
      problems.push(`cut off: ${shape.outerHTML.slice(0, 120)}`);
  }
  for (const t of texts) {
    if (t.size * scale < SMALLEST) problems.push(`too small: ${t.text}`);
    const middle = [(t.left + t.right) / 2, (t.top + t.bottom) / 2];
    const below = rects.filter(r => r.fill !== "none" && r.left <= middle[0] &&
      middle[0] <= r.right && r.top <= middle[1] && middle[1] <= r.bottom &&
      (r.node.compareDocumentPosition(t.node) & Node.DOCUMENT_POSITION_FOLLOWING));
    if (!below.length) continue; // it is cut off
    const found = contrast(getComputedStyle(t.node).fill, below[below.length - 1].fill);
    if (found < READABLE) problems.push(`contrast ${found.toFixed(1)}: ${t.text}`);
    if (t.node.classList.contains("number") && /^\d+$/.test(t.text)) {
      const cell = below[below.length - 1];
      if (t.left < cell.left || t.right > cell.right) problems.push(`wider than its cell: ${t.text}`);
    }
  }
  const order = texts.sort((a, b) => a.left - b.left);
  for (let i = 0; i < order.length; i++)
    for (let k = i + 1; k < order.length && order[k].left < order[i].right; k++)
      if (overlap(order[i], order[k])) problems.push(`overlap: ${order[i].text} and ${order[k].text}`);
  return problems;
}

const found = {};
for (const figure of document.querySelectorAll("figure"))
  found[figure.dataset.name] = check(figure.querySelector("svg"));
const page = getComputedStyle(document.querySelector("rect.page")).fill;
document.body.textContent = "RESULT" + JSON.stringify({page: page, found: found}) + "END";
