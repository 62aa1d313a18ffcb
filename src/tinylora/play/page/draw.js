// Pictures: tokens, dots, a line, a landscape. Everything is given; nothing is asked here.

import { shown } from "./numbers.js";

const SVG = "http://www.w3.org/2000/svg";
const FULL_NATS = 3; // where a token's colour is at its strongest

function svg(name, attributes, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

export function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  Object.assign(node, attributes);
  node.append(...children);
  return node;
}

// A token of an answer, coloured by how v changed its log-probability.
export function token({ text, change }) {
  const label = text === "" ? "⏎ end" : text;
  const node = element("span", { textContent: label, className: text === "" ? "token end" : "token" });
  if (change === null) {
    node.title = "the model's numbers are not finite";
    return node;
  }
  const strength = Math.min(1, Math.abs(change) / FULL_NATS);
  node.title = `${change > 0 ? "+" : "−"}${Math.abs(change).toFixed(2)} nats with these numbers`;
  node.dataset.change = change.toFixed(3);
  if (Math.abs(change) >= 0.05) node.classList.add(change > 0 ? "up" : "down");
  node.style.setProperty("--strength", strength.toFixed(3));
  return node;
}

// One square for each problem; `choose` gets the place of the one that is clicked.
export function dots(box, problems, choose) {
  box.replaceChildren(...problems.map((problem, place) => {
    const dot = element("button", { type: "button", tabIndex: -1, className: "dot" });
    dot.title = `${place + 1}: ${problem.prompt.slice(0, 200)}`;
    dot.setAttribute("aria-label", `Problem ${place + 1}`);
    dot.onclick = () => choose(place);
    return dot;
  }));
}

export function colourDots(box, letters, chosen) {
  [...box.children].forEach((dot, place) => {
    dot.className = `dot ${{ r: "r", w: "w", b: "b", "?": "q" }[letters[place]] ?? ""}`;
    dot.classList.toggle("chosen", place === chosen);
  });
}

// Where on a slider most answers are broken, as a gradient behind its track.
export function band(points) {
  const low = points[0].x, high = points.at(-1).x;
  const place = (x) => `${((100 * (x - low)) / (high - low)).toFixed(2)}%`;
  const stops = points.flatMap(({ x, isBroken }, i) => {
    const from = i ? (x + points[i - 1].x) / 2 : x;
    const to = i + 1 < points.length ? (x + points[i + 1].x) / 2 : x;
    const colour = isBroken ? "var(--broken-band)" : "var(--safe-band)";
    return [`${colour} ${place(from)}`, `${colour} ${place(to)}`];
  });
  return `linear-gradient(to right, ${stops.join(", ")})`;
}

const WIDTH = 520, HEIGHT = 220, LEFT = 40, BOTTOM = 26, TOP = 10, RIGHT = 10;

function frame(label) {
  return svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label });
}

function axis(picture, low, high, x, y) {
  for (const value of [low, low / 2, 0, high / 2, high]) {
    if (value < low || value > high) continue;
    picture.append(svg("text", { x: x(value), y: HEIGHT - 8, class: "tick" }, shown(value)));
  }
  for (const value of [0, 0.5, 1]) {
    picture.append(
      svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value), class: "rule" }),
      svg("text", { x: LEFT - 6, y: y(value) + 4, class: "tick side" }, `${100 * value} %`));
  }
}

// Accuracy along one slider, the broken bands behind it, and where it stands.
// `path`: points {x, share, step} of training, where this is the whole landscape.
export function line(box, { points, current, path, label, choose }) {
  const low = points[0].x, high = points.at(-1).x;
  const x = (v) => LEFT + ((WIDTH - LEFT - RIGHT) * (v - low)) / (high - low);
  const y = (share) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - share);
  const picture = frame(label);
  points.forEach((point, i) => {
    if (!point.isBroken) return;
    const from = i ? (point.x + points[i - 1].x) / 2 : point.x;
    const to = i + 1 < points.length ? (point.x + points[i + 1].x) / 2 : point.x;
    picture.append(svg("rect", { x: x(from), y: TOP, width: x(to) - x(from), height: HEIGHT - TOP - BOTTOM, class: "broken" }));
  });
  axis(picture, low, high, x, y);
  const known = points.filter((point) => point.of);
  const d = known.map((p, i) => `${i ? "L" : "M"}${x(p.x).toFixed(1)} ${y(p.share).toFixed(1)}`);
  picture.append(svg("path", { d: d.join(""), class: "curve" }));
  for (const p of known) picture.append(svg("circle", { cx: x(p.x), cy: y(p.share), r: 2.5, class: "point" }));
  drawPath(picture, path.map((p) => ({ ...p, left: x(p.x), top: y(p.share) })));
  picture.append(svg("line", { x1: x(current), x2: x(current), y1: TOP, y2: HEIGHT - BOTTOM, class: "now" }));
  picture.onclick = (event) => {
    const { left, width } = picture.getBoundingClientRect();
    const at = ((event.clientX - left) / width) * WIDTH;
    const share = (at - LEFT) / (WIDTH - LEFT - RIGHT);
    choose(low + (high - low) * Math.min(1, Math.max(0, share)));
  };
  box.replaceChildren(picture);
}

function drawPath(picture, points) {
  if (!points.length) return;
  const d = points.map((p, i) => `${i ? "L" : "M"}${p.left.toFixed(1)} ${p.top.toFixed(1)}`).join("");
  picture.append(svg("path", { d, class: "path" }));
  for (const p of points) {
    picture.append(
      svg("circle", { cx: p.left, cy: p.top, r: 4, class: "step" }, svg("title", {}, `step ${p.step}`)),
      svg("text", { x: p.left + 6, y: p.top - 6, class: "tick start" }, p.step));
  }
}

// The landscape of two numbers: a square for each pair, its accuracy as a colour, broken ones hatched.
export function landscape(box, { xs, ys, cells, current, path, label, choose }) {
  const side = 360, left = 40, top = 8, bottom = 26;
  const picture = svg("svg", { viewBox: `0 0 ${left + side + 10} ${top + side + bottom}`, role: "img", "aria-label": label });
  const step = xs[1] - xs[0];
  const low = xs[0] - step / 2, span = xs.at(-1) - xs[0] + step;
  const x = (v) => left + (side * (v - low)) / span;
  const y = (v) => top + side * (1 - (v - low) / span);
  const size = side / xs.length;
  ys.forEach((second, row) => xs.forEach((first, column) => {
    const cell = cells[row][column];
    const node = svg("rect", { x: x(first) - size / 2, y: y(second) - size / 2, width: size + 0.5, height: size + 0.5, class: cell?.isBroken ? "cell broken" : "cell" });
    if (cell?.of) node.style.setProperty("--share", cell.share.toFixed(3));
    node.append(svg("title", {}, cell?.of ? `${shown(first)}, ${shown(second)}: ${cell.right} of ${cell.of} right, ${cell.broken} broken` : "not measured yet"));
    picture.append(node);
  }));
  for (const value of [xs[0], 0, xs.at(-1)]) {
    picture.append(
      svg("text", { x: x(value), y: top + side + 18, class: "tick" }, shown(value)),
      svg("text", { x: left - 6, y: y(value) + 4, class: "tick side" }, shown(value)));
  }
  picture.append(
    svg("text", { x: left + side * 0.75, y: top + side + 18, class: "tick" }, "v1 →"),
    svg("text", { x: left - 6, y: top + side * 0.25, class: "tick side" }, "↑ v2"));
  drawPath(picture, path.map((p) => ({ ...p, left: x(p.x), top: y(p.y) })));
  const inside = (v) => Math.min(low + span, Math.max(low, v));
  picture.append(svg("circle", { cx: x(inside(current[0])), cy: y(inside(current[1])), r: 7, class: "here" }));
  picture.onclick = (event) => {
    const area = picture.getBoundingClientRect();
    const across = ((event.clientX - area.left) / area.width) * (left + side + 10);
    const down = ((event.clientY - area.top) / area.height) * (top + side + bottom);
    const at = (share) => inside(low + span * share);
    choose([at((across - left) / side), at(1 - (down - top) / side)]);
  };
  box.replaceChildren(picture);
}

// The accuracy after each step of training that was kept, as bars over the scrubber.
export function bars(box, steps, chosen) {
  box.replaceChildren(...steps.map(({ step, share }, place) => {
    const bar = element("div", { className: place === chosen ? "chosen" : "", textContent: step });
    bar.title = share === null ? `step ${step}` : `step ${step}: ${(100 * share).toFixed(0)} % right`;
    bar.style.setProperty("--share", share ?? 0);
    return bar;
  }));
}
