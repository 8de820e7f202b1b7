"use strict";
const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));
const rows = all("tbody tr");
const search = document.getElementById("search");
const least = document.getElementById("least");
const visibleText = row => all("th, td", row).filter(cell => !cell.hidden)
  .map(cell => all(".entry", cell).filter(entry => !entry.hidden).concat(
    cell.querySelector(".entry") ? [] : [cell]).map(part => part.textContent).join(" "))
  .join(" ").toLowerCase();
function filter() {
  const wanted = search.value.trim().toLowerCase();
  const floor = least ? Number(least.value) : 0;
  let shown = 0;
  for (const row of rows) {
    const strong = !least || Math.abs(Number(row.dataset.size)) >= floor;
    row.hidden = !(strong && (!wanted || visibleText(row).includes(wanted)));
    shown += row.hidden ? 0 : 1;
  }
  if (least) document.getElementById("floor").textContent = floor.toFixed(2);
  document.getElementById("count").textContent = shown + " of " + rows.length + " rows";
}
search.addEventListener("input", filter);
if (least) least.addEventListener("input", filter);
for (const select of all("select[data-column]")) {
  const choose = () => {
    for (const entry of all('td[data-column="' + select.dataset.column + '"] .entry'))
      entry.hidden = entry.dataset.choice !== select.value;
    filter();
  };
  select.addEventListener("change", choose);
  choose();
}
for (const box of all("input[data-column]")) {
  const toggle = () => {
    for (const cell of all('th[data-column="' + box.dataset.column + '"], td[data-column="'
      + box.dataset.column + '"]')) cell.hidden = !box.checked;
    filter();
  };
  box.addEventListener("change", toggle);
  toggle();
}
const sortBy = head => {
  const down = head.getAttribute("aria-sort") !== "descending";
  for (const other of all("th[data-sort]")) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const at = head.cellIndex;
  const value = row => row.cells[at].dataset.value;
  const key = row => value(row) === "" ? -Infinity : Number(value(row));
  const body = document.querySelector("tbody");
  rows.slice().sort((a, b) => down ? key(b) - key(a) : key(a) - key(b))
    .forEach(row => body.append(row));
};
for (const head of all("th[data-sort]"))
  head.querySelector("button").addEventListener("click", () => sortBy(head));
filter();
