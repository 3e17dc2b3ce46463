// A sheet of examples: a click on one tells 'select' with its {index}.
element.addEventListener("click", (event) => {
  const cell = event.target.closest("[data-index]");
  if (!cell) return;
  for (const other of element.querySelectorAll("[data-index]")) other.classList.toggle("chosen", other === cell);
  trigger("select", { index: +cell.dataset.index });
});
