"use strict";

// The browser of exchanges. Text reaches the page as text nodes alone, so that none of it is ever read as HTML.
(() => {
  const ROW = 56; // pixels, as in the style sheet: 3.5rem
  const LABELS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
  const { runs, rows } = JSON.parse(document.getElementById("data").textContent);
  const list = document.getElementById("list");
  const detail = document.getElementById("detail");
  const form = document.getElementById("filters");
  const count = document.getElementById("count");

  const FILTERS = [
    ["run", "run", (row) => runs[row.run]],
    ["round", "round", (row) => ("flip" in row ? "diagnosis" : String(row.round + 1))],
    ["tutee", "tutee", (row) => row.tutee],
    ["tutor", "tutor", (row) => row.tutor ?? ""],
    ["domain", "domain", (row) => row.domain ?? ""],
    ["outcome", "feedback", (row) => row.outcome ?? ""],
    ["grade", "response", (row) => (row.correct ? "right" : "wrong")],
    ["distilled", "distilled", (row) => (row.distilled ? "yes" : "no")],
    ["flip", "flipped", (row) => row.flip ?? "not asked again"],
  ];
  const FLIPS = { broken: "broken by feedback", rescued: "rescued by feedback", neither: "as before" };
  const read = Object.fromEntries(FILTERS.map(([name, , of]) => [name, of]));
  let shown = rows;
  let selected = 0;

  function make(tag, text, attributes = {}) {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  }

  function buildFilters() {
    for (const [name, title, of] of FILTERS) {
      const values = [...new Set(rows.map(of))].sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
      if (values.length < 2) continue;
      const select = make("select", undefined, { name });
      select.append(make("option", "all", { value: "" }), ...values.map((value) => make("option", value || "none", { value })));
      addFilter(title, select);
    }
    addFilter("text", make("input", undefined, { name: "text", type: "search" }));
  }

  function addFilter(title, control) {
    control.id = `filter-${control.name}`;
    const both = make("div");
    both.append(make("label", title, { for: control.id }), control);
    form.append(both);
  }

  function filter() {
    const wanted = [...new FormData(form)].filter(([, value]) => value !== "");
    const texts = wanted.filter(([name]) => name === "text").map(([, value]) => value.toLowerCase());
    const exact = wanted.filter(([name]) => name !== "text");
    shown = rows.filter(
      (row) =>
        exact.every(([name, value]) => read[name](row) === value) &&
        texts.every((text) => `${row.text}\n${row.response}\n${row.feedback_raw ?? ""}`.toLowerCase().includes(text)),
    );
    count.textContent = `${shown.length} of ${rows.length} exchanges`;
    list.scrollTop = 0;
    select(0);
  }

  // Only the rows in view are in the page, so that thousands scroll smoothly.
  function draw() {
    const first = Math.max(Math.floor(list.scrollTop / ROW) - 4, 0);
    const last = Math.min(first + Math.ceil(list.clientHeight / ROW) + 8, shown.length);
    const room = make("li", undefined, { role: "presentation", style: `top:0;height:${shown.length * ROW}px;padding:0;border:0;cursor:auto` });
    list.replaceChildren(room, ...shown.slice(first, last).map((row, i) => item(row, first + i)));
  }

  function item(row, index) {
    const element = make("li", undefined, {
      id: `exchange-${index}`,
      role: "option",
      "aria-selected": String(index === selected),
      style: `top:${index * ROW}px`,
    });
    const place = "flip" in row ? `diagnosis, ${FLIPS[row.flip]}` : `round ${row.round + 1}, step ${row.step + 1}`;
    element.append(
      make("span", `${row.correct ? "right" : "wrong"} · ${row.tutee} · ${place}`, { class: "first" }),
      make("span", row.text, { class: "second" }),
    );
    element.addEventListener("click", () => select(index));
    return element;
  }

  function select(index) {
    selected = Math.min(Math.max(index, 0), Math.max(shown.length - 1, 0));
    const top = selected * ROW;
    if (top < list.scrollTop) list.scrollTop = top;
    if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
    draw();
    if (shown.length) list.setAttribute("aria-activedescendant", `exchange-${selected}`);
    else list.removeAttribute("aria-activedescendant");
    show(shown[selected]);
  }

  function part(title, ...content) {
    detail.append(make("h4", title), ...content);
  }

  function text(value) {
    return make("p", value, { class: "text" });
  }

  function show(row) {
    detail.replaceChildren();
    if (!row) return;
    const of = runs.length > 1 ? `${runs[row.run]}, ` : "";
    const flipped = "flip" in row;
    const place = flipped ? "diagnosis" : `round ${row.round + 1}, phase ${row.phase + 1}, step ${row.step + 1}`;
    detail.append(make("h3", of + place));
    part("Question", text(row.text), options(row));
    part(`Response of ${row.tutee}: ${row.correct ? "right" : "wrong"}`, row.pieces ? tokens(row) : text(row.response));
    const said = row.feedback_raw ?? null;
    part(`Feedback${row.tutor ? ` of ${row.tutor}` : ""}: ${row.outcome ?? "none"}`, text(said ?? "Not asked."));
    if (row.feedback_shown && row.feedback_shown !== said) part("Feedback as it was kept", text(row.feedback_shown));
    if (row.solution_shown) part("The right response that the self-teacher saw", text(row.solution_shown));
    if (flipped) part(`Shown that, ${row.tutee} answers again: ${FLIPS[row.flip]}`, text(row.again));
    else if (!row.distilled) part("Distilled", text("No: there was neither a right response nor feedback to show."));
    if (row.cut) part("Cut", text(`${row.cut} characters are missing here.`));
  }

  function options(row) {
    const paragraph = make("p", undefined, { class: "text" });
    (row.options ?? []).forEach((option, i) => {
      const label = LABELS[i];
      const marks = [label === row.key ? "the key" : "", label === row.answer ? "answered" : ""].filter(Boolean).join(", ");
      paragraph.append(make("span", `${label}. ${option}${marks ? ` (${marks})` : ""}\n`, label === row.key ? { class: "key" } : {}));
    });
    return paragraph;
  }

  // The divergence of each token from the self-teacher, as its ground.
  function tokens(row) {
    const most = Math.max(...row.divergence, 1e-9);
    const paragraph = make("p", undefined, { class: "text tokens" });
    row.pieces.forEach((piece, i) => {
      const share = Math.sqrt(row.divergence[i] / most);
      const style = `background:rgb(var(--heat) / ${(0.75 * share).toFixed(2)})`;
      paragraph.append(make("span", piece, { style, title: `${row.divergence[i]} nats` }));
    });
    const legend = make("p", `Shaded by the divergence from the self-teacher; the strongest is ${most.toPrecision(2)} nats.`, { class: "note" });
    const both = make("div");
    both.append(paragraph, legend);
    return both;
  }

  const MOVES = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: 8, PageUp: -8, Home: -1e9, End: 1e9 };
  list.addEventListener("keydown", (event) => {
    if (!(event.key in MOVES)) return;
    event.preventDefault();
    select(selected + MOVES[event.key]);
  });
  list.addEventListener("scroll", draw);
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  buildFilters();
  filter();
})();
