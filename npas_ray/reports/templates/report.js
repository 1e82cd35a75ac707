
"use strict";
(() => {
  const tips = JSON.parse(document.getElementById("tips").textContent);
  const tip = document.getElementById("tip");
  let hot = [];

  // One candidate is lit wherever it appears, and its facts stand beside the pointer
  const show = (target, x, y) => {
    hide();
    const ordinal = target.dataset.c;
    hot = [...document.querySelectorAll(`[data-c="${ordinal}"]`)];
    hot.forEach((element) => element.classList.add("hot"));
    if (!target.closest("svg")) return;
    tip.replaceChildren(...(tips[ordinal] || []).map((line) => {
      const row = document.createElement("div");
      row.textContent = line;
      return row;
    }));
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(6, Math.min(x + 14, innerWidth - box.width - 6))}px`;
    tip.style.top = `${y + box.height + 24 > innerHeight ? y - box.height - 12 : y + 16}px`;
  };
  const hide = () => {
    hot.forEach((element) => element.classList.remove("hot"));
    hot = [];
    tip.hidden = true;
  };
  const marked = (event) => event.target.closest && event.target.closest("[data-c]");
  document.querySelectorAll("svg title").forEach((title) => title.remove()); // else there are two tooltips
  document.addEventListener("pointerover", (event) => {
    const target = marked(event);
    if (target) show(target, event.clientX, event.clientY); else hide();
  });
  document.addEventListener("focusin", (event) => {
    const target = marked(event);
    if (!target) return;
    const box = target.getBoundingClientRect();
    show(target, box.right, box.bottom);
  });
  document.addEventListener("focusout", hide);
  document.addEventListener("scroll", hide, true);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });

  const table = document.querySelector(".candidates");
  if (!table) return;
  const body = table.tBodies[0];
  const value = (row, column, kind) => {
    const cell = row.cells[column];
    if (kind === "text") return cell.textContent.trim();
    return cell.dataset.v === "" ? null : Number(cell.dataset.v);
  };
  table.querySelectorAll("th[data-sort]").forEach((head) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      const kind = head.dataset.sort;
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [value(a, head.cellIndex, kind), value(b, head.cellIndex, kind)];
        if (x === null || y === null) return (x === null) - (y === null); // what is unknown stays at the end
        const order = kind === "text" ? x.localeCompare(y) : x - y;
        return down ? -order : order;
      });
      table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      body.replaceChildren(...rows);
    });
  });
  const filters = document.querySelector(".filters");
  filters.hidden = false;
  filters.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const wanted = button.dataset.filter;
    filters.querySelectorAll("button").forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
    for (const row of body.rows) {
      row.hidden = wanted === "front" ? !("front" in row.dataset) : wanted !== "" && row.dataset.status !== wanted;
    }
  });
})();
