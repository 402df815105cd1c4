"use strict";
(() => {
  // Tooltips: every mark carries its text in data-tip.
  const tip = document.body.appendChild(document.createElement("div"));
  tip.id = "tip";
  tip.setAttribute("role", "tooltip");
  document.addEventListener("pointermove", (event) => {
    const mark = event.target.closest?.("[data-tip]");
    tip.style.display = mark ? "block" : "none";
    if (!mark) return;
    tip.textContent = mark.dataset.tip;
    const box = tip.getBoundingClientRect();
    const left = event.clientX + 14 + box.width > innerWidth ? event.clientX - box.width - 10 : event.clientX + 14;
    const top = event.clientY + 14 + box.height > innerHeight ? event.clientY - box.height - 10 : event.clientY + 14;
    tip.style.left = `${Math.max(4, left)}px`;
    tip.style.top = `${Math.max(4, top)}px`;
  });

  // Crystals turn: the same projection as the first drawing (structure_view.py).
  function rotation(aboutZ, tilt) {
    const [c, s, k, t] = [Math.cos(aboutZ), Math.sin(aboutZ), Math.cos(tilt), Math.sin(tilt)];
    return ([x, y, z]) => {
      const [u, v] = [c * x - s * y, s * x + c * y];
      return [u, k * z - t * v, -t * z - k * v];
    };
  }

  function viewer(box) {
    const scene = JSON.parse(box.dataset.scene);
    const group = box.querySelector("g.scene");
    const view = box.querySelector("svg").viewBox.baseVal;
    const reach = Math.max(...scene.corners.map((p) => Math.hypot(...p)));
    const scale = (Math.min(view.width, view.height) / 2 - 18) / reach;
    let [aboutZ, tilt] = scene.view;

    function make(name, attributes) {
      const node = document.createElementNS(group.namespaceURI, name);
      for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
      return node;
    }

    function draw() {
      const turn = rotation(aboutZ, tilt);
      const px = ([x, y]) => [(view.width / 2 + scale * x).toFixed(2), (view.height / 2 - scale * y).toFixed(2)];
      const items = [];
      const stick = (from, to, kind) => {
        const [[x1, y1], [x2, y2]] = [px(from), px(to)];
        items.push([(from[2] + to[2]) / 2 - 0.01, make("line", { x1, y1, x2, y2, class: kind })]);
      };
      const corners = scene.corners.map(turn);
      const atoms = scene.atoms.map((a) => turn([a.x, a.y, a.z]));
      for (let n = 0; n < 8; n++) for (const bit of [1, 2, 4]) if (!(n & bit)) stick(corners[n], corners[n | bit], "cell");
      for (const [i, j] of scene.bonds) stick(atoms[i], atoms[j], "bond");
      scene.atoms.forEach((a, i) => {
        const [cx, cy] = px(atoms[i]);
        items.push([atoms[i][2], make("circle", { cx, cy, r: (a.radius * scale).toFixed(2), fill: `url(#${scene.name}-${a.symbol})`, class: "atom", "data-tip": a.symbol })]);
      });
      items.sort((one, other) => one[0] - other[0]);
      const labels = ["a", "b", "c"].map((label, i) => {
        const corner = corners[1 << i];
        const out = 17 / Math.max(Math.hypot(corner[0], corner[1]), 1e-9);
        const [left, top] = px(corner).map(Number);
        const [x, y] = [left + out * corner[0], top - out * corner[1] + 4];
        const node = make("text", { x, y, class: "tick", "text-anchor": "middle" });
        node.textContent = label;
        return node;
      });
      group.replaceChildren(...items.map((item) => item[1]), ...labels);
    }

    function turnBy(dx, dy) {
      aboutZ += dx;
      tilt = Math.max(-Math.PI / 2, Math.min(Math.PI / 2, tilt - dy));
      draw();
    }
    box.addEventListener("pointerdown", (event) => box.setPointerCapture(event.pointerId));
    box.addEventListener("pointermove", (event) => {
      if (event.buttons) turnBy(event.movementX * 0.011, event.movementY * 0.011);
    });
    box.addEventListener("dblclick", () => {
      [aboutZ, tilt] = scene.view;
      draw();
    });
    box.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [-0.12, 0], ArrowRight: [0.12, 0], ArrowUp: [0, -0.12], ArrowDown: [0, 0.12] }[event.key];
      if (!step) return;
      event.preventDefault();
      turnBy(...step);
    });
    draw();
  }
  document.querySelectorAll(".viewer").forEach(viewer);

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
