"use strict";
(() => {
  const root = document.documentElement;
  const theme = document.getElementById("theme");
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  const value = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.value === undefined ? cell.textContent.trim().toLowerCase() : Number(cell.dataset.value);
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
      // Numbers with the largest first, names from A on; a second press turns it round.
      const before = head.getAttribute("aria-sort");
      const up = before ? before === "descending" : !head.classList.contains("number");
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const body = table.tBodies[0];
      const order = (a, b) => (a > b) - (a < b);
      const rows = [...body.rows].sort((a, b) => (up ? 1 : -1) * order(value(a, column), value(b, column)));
      body.append(...rows);
    }));
  }

  const places = document.getElementById("places");
  if (!places) return;
  const data = JSON.parse(document.getElementById("map-data").textContent);
  const tip = document.getElementById("tip");
  const picture = document.createElement("div");
  const name = document.createElement("p");
  picture.className = "sprite";
  picture.style.width = picture.style.height = `${data.side}px`;
  picture.style.backgroundImage = `url(${data.sprite})`;
  tip.append(picture, name);
  const show = (dot, x, y) => {
    const i = Number(dot.dataset.i);
    picture.style.backgroundPosition = `-${(i % data.columns) * data.side}px -${Math.floor(i / data.columns) * data.side}px`;
    name.textContent = data.names[Number(dot.dataset.c)];
    tip.hidden = false;
    const width = tip.offsetWidth, height = tip.offsetHeight;
    tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - width - 4))}px`;
    tip.style.top = `${y + 14 + height > innerHeight ? y - height - 10 : y + 14}px`;
  };
  // The nearest dot counts, as dots are too small for fingers.
  const dots = [...places.querySelectorAll("circle")];
  const at = dots.map((dot) => [Number(dot.getAttribute("cx")), Number(dot.getAttribute("cy"))]);
  let marked = null;
  const leave = () => {
    if (marked) marked.classList.remove("marked");
    marked = null;
    tip.hidden = true;
  };
  places.addEventListener("pointermove", (event) => {
    const box = places.getBoundingClientRect();
    const x = -105 + (210 * (event.clientX - box.left)) / box.width;
    const y = -105 + (210 * (event.clientY - box.top)) / box.height;
    let best = -1, least = 16;
    at.forEach(([a, b], i) => {
      if (dots[i].classList.contains("dim")) return;
      const far = (a - x) ** 2 + (b - y) ** 2;
      if (far < least) { least = far; best = i; }
    });
    leave();
    if (best < 0) return;
    marked = dots[best];
    marked.classList.add("marked");
    show(marked, event.clientX, event.clientY);
  });
  places.addEventListener("pointerleave", leave);
  addEventListener("scroll", leave, { passive: true });
  document.getElementById("highlight").addEventListener("change", (event) => {
    const wanted = event.target.value;
    for (const dot of dots) dot.classList.toggle("dim", wanted !== "" && dot.dataset.c !== wanted);
  });
})();
