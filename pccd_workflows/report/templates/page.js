"use strict";
(() => {
  // Tooltips: every mark carries its text in data-tip.
  const tip = document.body.appendChild(document.createElement("div"));
  tip.id = "tip";
  tip.setAttribute("role", "tooltip");
  function tell(mark, x, y) {
    tip.style.display = mark ? "block" : "none";
    if (!mark) return;
    tip.textContent = mark.dataset.tip;
    const box = tip.getBoundingClientRect();
    const left = x + 14 + box.width > innerWidth ? x - box.width - 10 : x + 14;
    const top = y + 14 + box.height > innerHeight ? y - box.height - 10 : y + 14;
    tip.style.left = `${Math.max(4, left)}px`;
    tip.style.top = `${Math.max(4, top)}px`;
  }
  for (const kind of ["pointermove", "pointerdown"]) {
    document.addEventListener(kind, (event) => tell(event.target.closest?.("[data-tip]"), event.clientX, event.clientY));
  }
  document.addEventListener("focusin", (event) => {
    const mark = event.target.querySelector?.(":scope > [data-tip]");
    const box = mark?.getBoundingClientRect();
    if (box) tell(mark, box.right, box.bottom);
  });

  // Tables sort by a click on their head.
  document.querySelectorAll("table.sortable th").forEach((head) => {
    head.tabIndex = 0;
    const sort = () => {
      const table = head.closest("table");
      const body = table.tBodies[0];
      const column = [...head.parentNode.children].indexOf(head);
      const up = head.getAttribute("aria-sort") !== "ascending";
      const key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
      const rows = [...body.rows].sort((one, other) => {
        const [a, b] = [key(one), key(other)];
        const order = a !== "" && b !== "" && !isNaN(a) && !isNaN(b) ? a - b : a.localeCompare(b);
        return up ? order : -order;
      });
      table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      body.replaceChildren(...rows);
    };
    head.addEventListener("click", sort);
    head.addEventListener("keydown", (event) => event.key === "Enter" && sort());
  });

  // Commands can be copied.
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("button.copy");
    if (!button) return;
    const done = () => {
      button.textContent = "copied";
      setTimeout(() => (button.textContent = "copy"), 1200);
    };
    if (navigator.clipboard) navigator.clipboard.writeText(button.dataset.copy).then(done, () => {});
    else {
      getSelection().selectAllChildren(button.previousElementSibling);
      document.execCommand("copy") && done();
    }
  });

  // A link to a document opens it: on the page, or from the embedded data.
  const embedded = document.getElementById("documents-json");
  const byId = new Map(embedded ? JSON.parse(embedded.textContent).map((doc) => [doc.candidate_id, doc]) : []);
  function follow(hash) {
    const id = decodeURIComponent(hash).replace(/^#doc-/, "");
    const block = document.getElementById(`doc-${id}`);
    if (block) {
      block.open = true;
      block.scrollIntoView({ block: "start" });
      return true;
    }
    const doc = byId.get(id);
    const dialog = document.getElementById("essentials");
    if (!doc || !dialog) return false;
    dialog.querySelector("h3").textContent = `${doc.formula_pretty} ${id}`;
    dialog.querySelector("dl").replaceChildren(
      ...Object.entries(doc).filter(([, value]) => value !== null && value !== "").map(([key, value]) => {
        const row = document.createElement("div");
        row.append(document.createElement("dt"), document.createElement("dd"));
        row.firstChild.textContent = key.replaceAll("_", " ");
        row.lastChild.textContent = typeof value === "object" ? JSON.stringify(value) : value;
        return row;
      }),
    );
    dialog.querySelector("p").textContent = `pccd candidate show ${id}`;
    dialog.showModal();
    return true;
  }
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.('a[href^="#doc-"], a[*|href^="#doc-"]');
    const hash = link?.getAttribute("href");
    if (hash && follow(hash)) {
      event.preventDefault();
      history.replaceState(null, "", hash);
    }
  });
  if (location.hash.startsWith("#doc-")) follow(location.hash);
})();
