"use strict";
// Sorting by a click on a heading; rows without a value stay below.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstChild.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = row => row.cells[column].dataset.key;
    const order = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      const numeric = !isNaN(x) && !isNaN(y);
      const less = numeric ? x - y : x.localeCompare(y, undefined, { numeric: true });
      return down ? -less : less;
    };
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort(order));
  }));
}
// Whatever is pointed at, the trial's line, dot and row stand out together.
const marked = [...document.querySelectorAll("[data-trial]")];
for (const element of marked) {
  const mark = on => {
    for (const other of marked) {
      if (other.dataset.trial === element.dataset.trial) other.classList.toggle("on", on);
    }
    document.querySelector(".coordinates")?.classList.toggle("pointed", on);
  };
  element.addEventListener("pointerenter", () => mark(true));
  element.addEventListener("pointerleave", () => mark(false));
}
