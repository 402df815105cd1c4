"use strict";
// What only the explorer has: element picker, selection, other cells, moving modes, live progress.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const ask = async (address) => {
    const reply = await fetch(address);
    const content = await reply.json();
    if (!reply.ok) throw new Error(content.error ?? reply.statusText);
    return content;
  };

  // The periodic table writes into the field "Contains".
  all(".elements").forEach((table) => {
    const field = table.closest("form").querySelector("[name=elements]");
    const chosen = () => field.value.split(/[\s,-]+/).filter(Boolean);
    const show = () => all("button", table).forEach((button) => button.setAttribute("aria-pressed", chosen().includes(button.dataset.element)));
    table.addEventListener("click", (event) => {
      const symbol = event.target.dataset.element;
      if (!symbol) return;
      const now = chosen();
      field.value = (now.includes(symbol) ? now.filter((one) => one !== symbol) : [...now, symbol]).join(", ");
      show();
    });
    field.addEventListener("input", show);
    show();
  });

  // Empty fields stay out of addresses.
  all("form.filters").forEach((form) => form.addEventListener("submit", () => {
    for (const field of all("[name]", form)) if (field.value === "") field.disabled = true;
  }));
  addEventListener("pageshow", () => all("form.filters :disabled").forEach((field) => (field.disabled = false)));

  document.getElementById("all")?.addEventListener("change", (event) => {
    all("#selection [name=id]").forEach((box) => (box.checked = event.target.checked));
  });

  // One crystal: other cells, and modes.
  all("[data-crystal]").forEach((page) => {
    const id = encodeURIComponent(page.dataset.crystal);
    const box = page.querySelector(".viewer");
    if (!box) return;
    const caption = box.parentNode.querySelector("figcaption");
    const tools = box.parentNode.querySelector(".tools");
    const show = async (address, cell) => {
      caption.setAttribute("role", "status");
      try {
        const found = await ask(address);
        box.show(found.scene);
        caption.textContent = found.caption;
        all("[data-cell]", tools).forEach((button) => button.setAttribute("aria-pressed", button.dataset.cell === cell));
        return found;
      } catch (error) {
        caption.textContent = error.message;
      }
    };
    for (const cell of page.dataset.cells.split(" ")) {
      const button = tools.appendChild(document.createElement("button"));
      button.type = "button";
      button.textContent = cell;
      button.setAttribute("aria-pressed", caption.textContent.startsWith(cell));
      button.dataset.cell = cell;
      button.addEventListener("click", () => show(`/api/scene/${id}?cell=${cell}`, cell));
    }

    const bands = page.querySelector("svg.bands");
    if (!bands || !("modes" in page.dataset)) return;
    bands.classList.add("modes");
    const scale = (text) => text.split(" ").map(Number);
    const [x, y] = [scale(bands.dataset.x), scale(bands.dataset.y)];
    const value = (pixel, [low, high, start, end]) => low + ((pixel - start) / (end - start)) * (high - low);
    const pixel = (at, [low, high, start, end]) => start + ((at - low) / (high - low)) * (end - start);
    const here = document.createElementNS(bands.namespaceURI, "circle");
    here.setAttribute("class", "here");
    here.setAttribute("r", 5);
    const move = async (distance, frequency) => {
      const found = await show(`/api/mode/${id}?distance=${distance}&frequency=${frequency}`);
      if (!found) return;
      here.setAttribute("cx", pixel(distance, x));
      here.setAttribute("cy", pixel(found.frequency, y));
      bands.append(here);
    };
    bands.addEventListener("click", (event) => {
      const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(bands.getScreenCTM().inverse());
      if (point.x < x[2] - 6 || point.x > x[3] + 6) return;
      move(Math.max(x[0], Math.min(x[1], value(point.x, x))), value(point.y, y));
    });
    // by keyboard: the lowest mode at each point that has a name
    const names = document.createElement("p");
    names.className = "tools";
    names.append("See the lowest mode move at: ");
    all("line.axis", bands).filter((line) => line.getAttribute("x1") === line.getAttribute("x2")).forEach((line) => {
      const at = Number(line.getAttribute("x1"));
      const label = all("text.tick", bands).find((text) => Number(text.getAttribute("x")) === at && text.getAttribute("text-anchor") === "middle");
      if (!label) return;
      const button = names.appendChild(document.createElement("button"));
      button.type = "button";
      button.textContent = label.textContent;
      button.addEventListener("click", () => move(value(at, x), y[0]));
    });
    bands.after(names);
  });

  // A campaign that runs is asked for again and again.
  all("[data-live]").forEach((section) => {
    const look = async () => {
      try {
        const now = await ask(section.dataset.live);
        section.querySelector("[data-live-text]").textContent = `${now.done} of ${now.total} jobs done`;
        section.querySelector("[data-live-width]").style.width = `${(100 * now.done) / now.total}%`;
        all(".funnel > li").forEach((row, i) => {
          const step = now.funnel[i];
          if (!step) return;
          row.querySelector(".fill").style.width = `${step.width}%`;
          row.querySelector(".count").textContent = step.count.toLocaleString("en");
          row.querySelector(".percent").textContent = step.percent;
        });
        if (!now.running) return location.reload();
      } catch {
        // the database or this server is away: ask again
      }
      setTimeout(look, 3000);
    };
    setTimeout(look, 3000);
  });
})();
